"""Errors under a lease as OpenAI's clients know them. Pure."""

from starlette.responses import Response

from ...errors import CallerFault, RequestError
from ...supervision.leases.entrance import WrongToken
from ...supervision.leases.relay import Comeback
from .errors import openai_error


class WrongModel(CallerFault):
    """A lease serves one model."""

    param = "model"

    def __init__(self, asked: str, pinned: str) -> None:
        super().__init__(f"`model`: this lease serves {pinned!r}, not {asked[:128]!r}")


def refusal(error: RequestError) -> Response:
    """The whole answer."""
    if isinstance(error, WrongToken):
        answer = openai_error(error, status=401, code="invalid_api_key")
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    answer = openai_error(error, param=getattr(error, "param", None))
    if isinstance(error, Comeback):
        answer.headers["retry-after"] = str(error.retry_after_s)
    return answer
