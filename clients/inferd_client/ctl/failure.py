"""An exception in one line that says what to do; pure."""

from ..errors import (
    BackendFailed,
    Conflict,
    ConnectionLost,
    DaemonBusy,
    DaemonFault,
    DaemonNotRunning,
    InferdError,
    NoRoom,
    RequestFailed,
)
from ..status import NotReady

_HINTS: dict[type[InferdError], str] = {
    DaemonNotRunning: "start one with `inferd`, or see it work with `inferdctl demo`",
    ConnectionLost: "look at the daemon's log, and run the command again",
    DaemonBusy: "try again in a moment",
    NoRoom: "`inferdctl ps` shows what runs",
    BackendFailed: "`inferdctl status` tells how the backends are",
    DaemonFault: "this is a bug in the daemon; its log knows more",
    NotReady: "`inferdctl status` tells more",
}

_OPTIONS = {"`force`": "--force", "`wait_ms`": "--wait-room"}
"""The daemon's advice names fields of the wire; these are their options here."""


def in_one_line(error: InferdError) -> str:
    """The error's words, its code where it has one, and what to do about it."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, Conflict):
        for field, option in _OPTIONS.items():
            text = text.replace(field, option)
    if isinstance(error, RequestFailed):
        text = f"{text} ({error.code})"
    for kind, hint in _HINTS.items():
        if isinstance(error, kind):
            return f"{text}; {hint}"
    return text
