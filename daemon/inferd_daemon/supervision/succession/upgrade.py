"""Asks the code that is installed now, in a process of its own, whether it could take over.

Only where it could is the upgrade asked for; else the reason goes to who wanted it and the daemon
goes on as it is. Changes nothing itself.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack

import structlog
import trio

from inferd_proto import ErrorCode

from ... import lean_imports
from ...engines.base import EngineFailure, Launch
from ...errors import RequestError
from ..processes.process import Process, spawn
from .handover import Handover, encode
from .reexec import ACTIVATION, VARIABLE, command, memory_file

PREFLIGHT_TIMEOUT_S = 30.0
"""It imports everything and reads the configuration: a second on a small machine, unless its
bytecode is yet to be written."""
PREFLIGHT_FLAG = "--preflight"
MAX_SAID_BYTES = 64 * 1024
MAX_REASON_CHARS = 4096
_NOT_FOR_PREFLIGHT = (*ACTIVATION, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
_log = structlog.get_logger(__name__)


class UpgradeRefused(RequestError):
    """The daemon stays what it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.CONFLICT, f"not upgraded, the daemon goes on: {reason}")


class Upgrade:
    """`asked` is set once the new code has shown that it can take over what `snapshot` gives."""

    def __init__(self, snapshot: Callable[[], Handover]) -> None:
        self.asked = trio.Event()
        self.code: int | None = None
        """A descriptor of the code that was checked, once it is asked for."""
        self._snapshot = snapshot
        self._checking = False

    async def ask(self) -> None:
        """Preflight, then have the daemon go over. Raises UpgradeRefused."""
        if self._checking or self.asked.is_set():
            raise UpgradeRefused("an upgrade is under way already")
        self._checking = True
        try:
            reason = await self._preflight()
        finally:
            self._checking = False
        if reason is not None:
            _log.error("upgrade refused, going on", reason=reason)
            raise UpgradeRefused(reason)
        self.asked.set()

    async def _preflight(self) -> str | None:
        with ExitStack() as files:
            try:
                state, output, code = (
                    _open_memory(files, data) for data in (encode(self._snapshot()), b"", b"")
                )
                process = spawn(_launch(state, code), log_fd=output)
            except OSError as error:
                return f"no room to check the new code: {error.strerror}"
            except EngineFailure as error:
                return str(error)
            status = await _ended(process)
            if status == 0:
                self.code = os.dup(code)
                os.lseek(code, 0, os.SEEK_SET)  # of both
                return None
            if status is None:
                return f"the new code was not through its check after {PREFLIGHT_TIMEOUT_S:g} s"
            said = os.pread(output, MAX_SAID_BYTES, 0).decode(errors="replace")
            return explain_refusal(said) or f"the check of the new code ended with {status}"


def _open_memory(files: ExitStack, data: bytes) -> int:
    descriptor = memory_file(data)
    files.callback(os.close, descriptor)
    return descriptor


def _launch(state: int, code: int) -> Launch:
    kept = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_PREFLIGHT}
    return Launch(
        argv=[*command(), PREFLIGHT_FLAG],
        environment={**kept, VARIABLE: str(state), lean_imports.PACK_VARIABLE: str(code)},
        pass_fds=(state, code),
    )


async def _ended(process: Process) -> int | None:
    """Its return code; None where it took too long. It is gone in any case."""
    try:
        with trio.move_on_after(PREFLIGHT_TIMEOUT_S):
            return await process.wait()
        return None
    finally:
        if process.returncode is None:
            await process.kill()
        process.close()


def explain_refusal(said: str) -> str:
    """What the check wrote, in one line: of a traceback the exception, else all that is wrong."""
    lines = [line.strip() for line in said.strip().splitlines()]
    if not lines or "Traceback (most recent call last):" in lines:
        return "".join(lines[-1:])
    told, *mistakes = lines
    reason = told.removeprefix("inferd: ") + (": " if mistakes else "") + "; ".join(mistakes)
    return reason if len(reason) <= MAX_REASON_CHARS else f"{reason[:MAX_REASON_CHARS]}…"
