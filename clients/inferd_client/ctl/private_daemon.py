"""A daemon of one's own: in a temporary directory, for as long as a block lasts.

Runs `python -m inferd_daemon` and knows nothing of its code. Whatever ends the block (an
exception, Ctrl-C, SIGTERM, SIGHUP), the process is stopped and awaited and the directory removed;
should this process be killed outright, the kernel tells the daemon to stop.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inferd_proto import MAX_SOCKET_PATH_BYTES, SOCKET_NAME

from ..blocking import Client
from ..errors import ConnectError, ConnectionLost, InferdError
from ..status import what_is_missing

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_STOP_S = 2.0
"""Between two ways to ask; a daemon without work stops in a fraction of it."""
_TAIL_LINES = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PREFIX = "inferd-demo-"

_OTHERS = ("INFERD_", "LLAMA_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")
_OTHERS_DIRECTORIES = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY")
"""Settings for another daemon, or for a service that this is not."""


class PrivateDaemonFailed(InferdError):
    """The daemon did not come up, or died; the message ends with its last words."""


class PrivateDaemon:
    """A running daemon process and its socket."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.directory = directory
        self.socket = directory / SOCKET_NAME
        self._process = process
        self._log = directory / "daemon.log"

    @property
    def pid(self) -> int:
        """Of the daemon."""
        return self._process.pid

    def await_ready(self, route: str, timeout_s: float) -> None:
        """Raises PrivateDaemonFailed where the daemon dies, or is not ready in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            missing = self._what_is_missing(route, timeout_s)
            if missing is None:
                return
            self.check_alive()
            if time.monotonic() >= deadline:
                why = f"the daemon was not ready within {timeout_s:g} s ({missing})"
                raise PrivateDaemonFailed(f"{why}{self.last_words()}")
            time.sleep(_POLL_S)

    def check_alive(self) -> None:
        """Raises PrivateDaemonFailed where the daemon has ended."""
        code = self._process.poll()
        if code is None:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise PrivateDaemonFailed(f"the daemon ended with {how}{self.last_words()}")

    def last_words(self) -> str:
        """The end of what the daemon wrote, indented under a message."""
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        if not lines:
            return "; it wrote nothing"
        tail = "".join(f"\n    {line[:500]}" for line in lines[-_TAIL_LINES:])
        return f"; it wrote:{tail}"

    def stop(self) -> None:
        """End the process and await it: asked, asked again, then killed with its group."""
        steps = (self._process.terminate, self._process.terminate, self._kill_group)
        for step in steps:
            if self._process.poll() is not None:
                return
            step()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)

    def _kill_group(self) -> None:
        # The leader is not reaped yet, so the number is still its group's.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _what_is_missing(self, route: str, timeout_s: float) -> str | None:
        try:
            with Client(self.socket, timeout_s=timeout_s) as client:
                return what_is_missing(client.status(), route)
        except (ConnectError, ConnectionLost) as error:
            return str(error)


@contextmanager
def private_daemon(arguments: Sequence[str]) -> Iterator[PrivateDaemon]:
    """Run `python -m inferd_daemon ARGUMENTS --socket …` while the block lasts."""
    with (
        _ending_on_signals(),
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_short_base()) as directory,
    ):
        daemon = PrivateDaemon(_spawn(arguments, Path(directory)), Path(directory))
        try:
            yield daemon
        finally:
            with _deaf_to_signals():
                daemon.stop()


def _spawn(arguments: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl  # looked up before the fork: the child must not import

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    # -P: a file of that name in the current directory is not the daemon.
    command = [sys.executable, "-P", "-m", "inferd_daemon", *arguments]
    with (directory / "daemon.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--socket", str(directory / SOCKET_NAME)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(os.environ, directory),
            start_new_session=True,  # Ctrl-C is ours alone to act on
            preexec_fn=die_with_parent,
        )


def environment(inherited: Mapping[str, str], directory: Path) -> dict[str, str]:
    """What the daemon inherits: nothing that configures another, and directories of its own."""
    kept = {
        k: v for k, v in inherited.items() if not k.startswith((*_OTHERS, *_OTHERS_DIRECTORIES))
    }
    return kept | {
        "INFERD_RUNTIME_DIR": str(directory),
        "INFERD_STATE_DIR": str(directory / "state"),
        "XDG_CONFIG_HOME": str(directory / "config"),
    }


def _short_base() -> str | None:
    """None (the usual place) unless a socket's path would be too long there."""
    usual = tempfile.gettempdir()
    longest = len(os.fsencode(usual)) + len(f"/{_PREFIX}12345678/{SOCKET_NAME}") + 32
    return None if longest <= MAX_SOCKET_PATH_BYTES else "/tmp"


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does; whichever comes first is the only one."""

    def end(number: int, _frame: object) -> None:
        for other in _SIGNALS:  # the impatient do it twice: what unwinds must not be cut short
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """While things are put away a second Ctrl-C would leave some behind. Bounded by `stop`."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
