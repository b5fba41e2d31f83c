"""Errors under a lease, in the shape that its client knows. Pure."""

from starlette.responses import Response

from ...errors import CallerFault, RequestError
from ...supervision.leases.entrance import WrongToken
from .openai.failures import ErrorShape


class WrongModel(CallerFault):
    """A lease serves one model."""

    def __init__(self, asked: str, pinned: str) -> None:
        super().__init__(f"`model`: this lease serves {pinned!r}, not {asked[:128]!r}")


def refusal(error: RequestError, shape: ErrorShape) -> Response:
    """The whole answer."""
    if isinstance(error, WrongToken):
        answer = shape.response(error, status=401, code="invalid_api_key")
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    return shape.response(error)
