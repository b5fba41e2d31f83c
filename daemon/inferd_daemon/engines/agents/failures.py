"""Why a run gave no answer: the CLI's words as our error, by who is to blame, and what to do.

Pure. Secrets are taken out before anything is cut.
"""

from collections.abc import Iterable

from inferd_proto import ErrorCode

from ...backends.chat_completions.redaction import Redactor
from ...errors import BackendFault, CallerFault, RequestError, UpstreamFault
from .dialogue import Failed
from .profile import AgentProfile

MAX_WORDS_CHARS = 400
MAX_READ_CHARS = 4096
_CALLER_STATUSES = frozenset((400, 413, 422))


def explain(
    failed: Failed, profile: AgentProfile, model: str, *, local: bool, secrets: Iterable[str]
) -> RequestError:
    """`local`: it ran on an upstream of ours, not on its own login."""
    words = one_line(failed.message, secrets) or "it does not say why"
    match failed.status:
        case 401 | 403:
            advice = (
                "its upstream refused the key of this run"
                if local
                else f"it is logged out or its account may not: {profile.login_hint}"
            )
            return BackendFault(f"{profile.name}: {advice} ({failed.status}: {words})")
        case 404:
            return BackendFault(
                f"{profile.name}: its upstream has no model {model!r}; ask for one that it has "
                f"(404: {words})",
                ErrorCode.NOT_FOUND,
            )
        case 429:
            return RequestError(
                ErrorCode.QUEUE_FULL,
                f"{profile.name}: its upstream takes no more for now; try later (429: {words})",
            )
        case status if status in _CALLER_STATUSES:
            return CallerFault(f"{profile.name}: its upstream refused the request: {words}")
        case None:
            return UpstreamFault(f"{profile.name} failed: {words}")
        case status:
            return UpstreamFault(f"{profile.name}: its upstream answered {status}: {words}")


def conclusive(error: RequestError) -> RequestError:
    """`error` as that of a run that began: what an account has paid for is not to be repeated by a
    program unasked. Where an upstream takes no more for now, nothing was spent."""
    error.again = error.code is ErrorCode.QUEUE_FULL
    return error


def one_line(text: str, secrets: Iterable[str]) -> str:
    """`text` for an error: printable, on one line, without `secrets`, not longer than one needs."""
    redact = Redactor(secrets)
    text = redact(text[: MAX_READ_CHARS + redact.longest])
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= MAX_WORDS_CHARS else words[: MAX_WORDS_CHARS - 1] + "…"
