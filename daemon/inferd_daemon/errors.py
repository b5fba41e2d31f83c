"""What can fail in the daemon, typed by who is to blame; each maps to one code on the wire.

Messages say what was wrong and what to do in one sentence, and never hold a secret, a prompt or
a header (wire.md section 4).
"""

from inferd_proto import ErrorCode, JsonObject


class InferdError(Exception):
    """Base of everything the daemon raises on purpose."""


class RequestError(InferdError):
    """Ends one request with an `error` frame of `code`."""

    again = True
    """Whether the same request may well be sent again, by a program that does so unasked."""

    def __init__(self, code: ErrorCode, message: str, *, details: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class CallerFault(RequestError):
    """The request is at fault: another backend would refuse it as well. Not the backend's blame."""

    def __init__(
        self,
        message: str,
        code: ErrorCode = ErrorCode.INVALID_REQUEST,
        *,
        details: JsonObject | None = None,
    ) -> None:
        super().__init__(code, message, details=details)


class BackendFault(RequestError):
    """The backend or its upstream failed; counts against it."""

    def __init__(
        self,
        message: str,
        code: ErrorCode = ErrorCode.BACKEND_UNAVAILABLE,
        *,
        details: JsonObject | None = None,
    ) -> None:
        super().__init__(code, message, details=details)


class UpstreamFault(BackendFault):
    """What was asked answered wrongly, or broke off in its answer: it was there, and failed. Over
    HTTP that is another status (502) than of one that takes no requests for now (503)."""


class KeyRefused(UpstreamFault):
    """An upstream does not take our key, or does not let it do what was asked."""


class BackendSilence(BackendFault):
    """The backend let the time run out. Each request that meets it says so for itself: those that
    ran at the same time did not fail by one and the same crash."""


class AnswerTooLong(BackendFault):
    """The answer went on until its whole time was over, for it was long or its reader slow: the
    backend works, and it does not count."""


class ModelFault(BackendFault):
    """What the model wrote cannot be passed on; the backend works, and it does not count."""


class MachineFault(BackendFault):
    """The machine lacks what it takes to reach the backend, who is not to blame."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this machine is at its limits: {why}; try again later")


class CallerLeft(InferdError):
    """Whoever asked is gone, and nobody is there to be told."""


class OperatorError(InferdError):
    """The daemon cannot start or go on as configured; the message says what to change."""
