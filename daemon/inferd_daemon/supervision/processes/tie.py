"""The short way to tie a child's life to the daemon's: programs of the machine instead of Python.

The exec stub takes as long as an interpreter starts, several times what a shell takes; where a
process is started for each request, or a request waits for one, that counts. Does the same: SIGKILL
when the parent is gone, and nothing is run for one that is gone already.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

from ...backends.thread import in_thread

CHECK = '[ "$PPID" = "$1" ] || exit 126; shift; exec "$@"'
CHECK_TIMEOUT_S = 5.0
SCRIPT = b"#!"
ELF_FORMAT, ELF_MACHINE = slice(0, 6), slice(18, 20)
HEAD_BYTES = 20


def short_tie(program: str) -> list[str] | None:
    """What `spawn` puts before `program`; None where this machine lacks it. Blocks once."""
    found = _working_tie() if _is_program(program) else ()
    return [*found, str(os.getpid())] if found else None


def known_tie(program: str) -> list[str] | None:
    """The same where it is known by now whether this machine has it, else None. Never blocks."""
    return short_tie(program) if _working_tie.cache_info().currsize else None


async def learn_tie() -> None:
    """Have it known from here on."""
    with contextlib.suppress(OSError):  # no thread can be had: then another time
        await in_thread(_working_tie, None)


@cache
def _working_tie() -> Sequence[str]:
    """Tried, not only found: a service's filter of system calls may not let it do its work."""
    setpriv, shell = shutil.which("setpriv"), shutil.which("sh")
    if setpriv is None or shell is None:
        return ()
    tie = (setpriv, "--pdeathsig", "KILL", "--", shell, "-c", CHECK, "inferd")
    try:
        done = subprocess.run(
            [*tie, str(os.getpid()), "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tie if done.returncode == 0 else ()


def _is_program(path: str) -> bool:
    """Whether the kernel runs it: anything else a shell would take for a script of its own."""
    try:
        head, own = _head(path), _own_head()
    except OSError:
        return False  # the exec stub tells why
    alike = all(head[part] == own[part] for part in (ELF_FORMAT, ELF_MACHINE))
    return alike or head.startswith(SCRIPT)


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)


@cache
def _own_head() -> bytes:
    return _head("/proc/self/exe")
