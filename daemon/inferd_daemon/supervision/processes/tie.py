"""The short way to tie a child's life to the daemon's: programs of the machine instead of Python.

The exec stub takes as long as an interpreter starts, several times what a shell takes; where a
process is started for each request that counts. Does the same: SIGKILL when the parent is gone, and
nothing is run for one that is gone already.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

CHECK = '[ "$PPID" = "$1" ] || exit 126; shift; exec "$@"'
CHECK_TIMEOUT_S = 5.0


def short_tie() -> list[str] | None:
    """What `spawn` puts before a program; None where this machine lacks it. Blocks once."""
    found = _working_tie()
    return [*found, str(os.getpid())] if found else None


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
