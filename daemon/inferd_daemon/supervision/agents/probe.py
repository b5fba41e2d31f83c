"""Asks a CLI about itself: is it there, which version, is it logged in. Offline, each in seconds.

`amp` and `gemini` have nothing to ask; what a profile says then is by key or by file.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import trio

from ...backends.thread import in_thread
from ...engines.agents.binary import find_binary
from ...engines.agents.dialogue import last_line
from ...engines.agents.environment import probe_environment, secrets_of
from ...engines.agents.failures import one_line
from ...engines.agents.profile import AgentProbe, AgentProfile, LoginEvidence
from ...engines.base import EngineFailure, Launch
from ...engines.failures import describe_exit
from ...errors import BackendFault
from ..processes.process import Process, spawn
from ..processes.stdio import Stdio
from ..processes.tie import known_tie
from .place import fill_probe_home

PROBE_TIMEOUT_S = 15.0
"""The slowest takes a second and a half to say its version, on an idle machine."""
MAX_OUTPUT_BYTES = 64 * 1024


async def probe(
    profile: AgentProfile, environment: Mapping[str, str], configured: str | None = None
) -> AgentProbe:
    """`configured` is the program the operator named, `environment` the daemon's own.

    Never raises for what a CLI is or does: that is what the result tells. Main thread only.
    """
    try:
        binary = find_binary(profile, environment, configured)
    except BackendFault as error:
        return AgentProbe(None, None, None, error.message)
    try:
        # Some unpack a part of themselves there, and would take what somebody else put there.
        with tempfile.TemporaryDirectory(prefix="inferd-probe-") as directory:
            home = profile.probe_home(environment, Path(directory))
            await in_thread(fill_probe_home, None, Path(directory), home)
            inner = probe_environment(profile, environment) | {"TMPDIR": directory}
            inner.update(home.variables)
            return await _examine(profile, binary, environment, inner)
    except OSError as error:
        why = f"{profile.name}: cannot be asked: {error.strerror}"
        return AgentProbe(binary, None, None, why)


async def _examine(
    profile: AgentProfile, binary: Path, environment: Mapping[str, str], inner: dict[str, str]
) -> AgentProbe:
    version: str | None = None
    try:
        told = await _ask([str(binary), "--version"], inner)
        version = profile.read_version(told.stdout) if told.returncode == 0 else None
        if version is None:
            said = one_line(last_line(told.stderr or told.stdout), secrets_of(inner))
            ended = describe_exit(told.returncode)
            why = f"{profile.name}: {binary} tells no version ({ended}): {said}"
            return AgentProbe(None, None, None, why)
        evidence = LoginEvidence(environment, file_found=_found(profile, environment))
        command = profile.login_command(environment)
        if command is not None:
            told = await _ask([str(binary), *command], inner)
            evidence = evidence._replace(returncode=told.returncode, output=told.stdout)
    except BackendFault as error:
        return AgentProbe(binary, version, None, f"{profile.name}: {error.message}")
    login = profile.judge_login(evidence)
    reason = f"{profile.name}: {login.reason}" if login.reason else ""
    return AgentProbe(binary, version, login.logged_in, reason)


def _found(profile: AgentProfile, environment: Mapping[str, str]) -> bool:
    return any(os.access(path, os.R_OK) for path in profile.login_files(environment))


class _Told(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


async def _ask(argv: list[str], environment: dict[str, str]) -> _Told:
    """Raises BackendFault, OSError without descriptors."""
    stdio = Stdio()
    ends = stdio.child
    process: Process | None = None
    try:
        launch = Launch(argv, environment, directory=Path("/"))
        process = spawn(
            launch,
            log_fd=ends.stderr,
            stdin_fd=ends.stdin,
            stdout_fd=ends.stdout,
            tie=known_tie(argv[0]),
        )
        stdio.close_child_ends()
        stdio.close_stdin()
        stdio.watch(process.pidfd)
        output = bytearray()
        with trio.move_on_after(PROBE_TIMEOUT_S):
            while not stdio.exited and len(output) <= MAX_OUTPUT_BYTES:
                await stdio.wait()
                output += stdio.pump()
            output += stdio.rest()
            returncode = await process.wait()
            return _Told(returncode, output.decode(errors="replace"), stdio.stderr)
        raise BackendFault(f"`{' '.join(argv)}` does not end")
    except EngineFailure as error:
        raise BackendFault(str(error)) from error
    finally:
        if process is not None:
            await process.kill()
        stdio.close()
        if process is not None:
            process.close()
