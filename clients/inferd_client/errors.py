"""What can go wrong between a program and the daemon, typed by who has to act.

InferdError
├── ConnectError              no connection came about
│   └── DaemonNotRunning      nobody listens on the socket
├── ConnectionLost            it came about and broke; the client is spent
│   └── ProtocolViolation     the daemon's bytes make no sense
├── ClientClosed              this program closed the client
├── AnswerTimeout             this program's own deadline passed (blocking client)
├── NotReady                  the daemon or a route did not get ready in time
├── StreamOverflow            this program took a stream's events too slowly
├── LeaseLost                 a lease ended while its block still ran
└── RequestFailed             the daemon answered with an error
    ├── RequestRefused        the request is at fault
    │   └── NotFound, PermissionDenied, Conflict, Incompatible
    │       └── NoRoom        a Conflict: memory or runtimes do not suffice
    ├── DaemonBusy            the queue is full: ask again later
    ├── BackendFailed         the engine or its upstream failed
    ├── OperationTimeout      the daemon's own deadline passed
    └── DaemonFault           a bug in the daemon: its log knows more
"""

import msgspec

from inferd_proto import CompatibilityResult, EnsurePlan, ErrorCode, JsonObject


class InferdError(Exception):
    """Base of everything that this package raises on purpose."""


class ConnectError(InferdError):
    """The socket at `path` could not be connected to."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


class DaemonNotRunning(ConnectError):
    """There is no socket at `path`, or nobody listens on it."""


class ConnectionLost(InferdError):
    """The connection ended under a request, or before one. Open a new client to go on."""


class ProtocolViolation(ConnectionLost):
    """The daemon sent what the protocol does not allow."""


class ClientClosed(InferdError):
    """The client was used after, or closed during, the call."""


class AnswerTimeout(InferdError, TimeoutError):
    """Nothing of the answer came within the client's `timeout_s`; the request was cancelled."""


class StreamOverflow(InferdError):
    """More of this stream was unread than `max_buffered_bytes` while others were being read.

    The stream was cancelled; what had been buffered was delivered before this was raised.
    """


class LeaseLost(InferdError):
    """The lease `lease_ref` ended while its block still ran: it could not be renewed in time, or
    somebody ended it. The runtime may go; ensure again to go on."""

    def __init__(self, why: str, lease_ref: str) -> None:
        super().__init__(f"the lease {lease_ref} is lost: {why}")
        self.lease_ref = lease_ref


class RequestFailed(InferdError):
    """The daemon ended the request with an error frame (wire.md section 4).

    `code` says what, `message` where and why; `details` is the daemon's own data, if any.
    """

    def __init__(self, code: ErrorCode, message: str, details: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later, or through another backend."""
        return isinstance(self, DaemonBusy | BackendFailed | OperationTimeout)


class RequestRefused(RequestFailed):
    """The request is at fault; the same request will fail again."""


class NotFound(RequestRefused):
    """What the request names does not exist, or no longer."""


class PermissionDenied(RequestRefused):
    """The daemon's user, root or its admin group may do this; this process's user may not."""


class Conflict(RequestRefused):
    """The state of the thing forbids it, for example a runtime that is leased."""


class NoRoom(Conflict):
    """Memory, or the number of runtimes, does not suffice; `plan` tells what is in the way."""

    @property
    def plan(self) -> EnsurePlan:
        """What would have to go, and who holds it."""
        return msgspec.convert((self.details or {})["plan"], EnsurePlan)


class Incompatible(RequestRefused):
    """Consumer and backend do not fit."""

    @property
    def compatibility(self) -> CompatibilityResult | None:
        """The whole comparison; None where it did not come to one."""
        try:
            return msgspec.convert((self.details or {})["compatibility"], CompatibilityResult)
        except (KeyError, msgspec.ValidationError):
            return None


class DaemonBusy(RequestFailed):
    """Every permit is taken and the queue is full."""


class BackendFailed(RequestFailed):
    """The engine or its upstream failed, or is not up."""


class OperationTimeout(RequestFailed):
    """A deadline of the daemon passed before the operation was done."""


class DaemonFault(RequestFailed):
    """A bug in the daemon."""


_CLASSES: dict[ErrorCode, type[RequestFailed]] = {
    ErrorCode.QUEUE_FULL: DaemonBusy,
    ErrorCode.BACKEND_UNAVAILABLE: BackendFailed,
    ErrorCode.TOOL_CALL_MALFORMED: BackendFailed,
    ErrorCode.INTERNAL: DaemonFault,
    ErrorCode.TIMEOUT: OperationTimeout,
    ErrorCode.NOT_FOUND: NotFound,
    ErrorCode.PERMISSION_DENIED: PermissionDenied,
    ErrorCode.CONFLICT: Conflict,
    ErrorCode.INCOMPATIBLE: Incompatible,
}


def request_failed(code: ErrorCode, message: str, details: JsonObject | None) -> RequestFailed:
    """The exception of the class that `code` belongs to."""
    if code is ErrorCode.CONFLICT and _holds_a_plan(details):
        return NoRoom(code, message, details)
    return _CLASSES.get(code, RequestRefused)(code, message, details)


def _holds_a_plan(details: JsonObject | None) -> bool:
    try:
        msgspec.convert((details or {})["plan"], EnsurePlan)
    except (KeyError, msgspec.ValidationError):
        return False
    return True
