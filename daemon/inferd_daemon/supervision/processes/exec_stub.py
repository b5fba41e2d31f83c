"""Runs between fork and exec of every child: ties its life to the daemon's, then becomes it.

    python -IS exec_stub.py PARENT_PID PROGRAM [ARGUMENT ...]

Run as a script by a bare interpreter, so it imports nothing of inferd. Exits with 126 when the
daemon died before the tie was made, with 127 when PROGRAM cannot be run.
"""

import os
import sys

# The bare C modules: `signal` and `ctypes` import as much as the interpreter itself, and every
# start of a runtime would wait for it.
from _ctypes import call_cdeclfunction, dlopen, dlsym
from _signal import SIG_DFL, SIGKILL, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    prctl = dlsym(dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    if call_cdeclfunction(prctl, (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) != 0:
        print("exec stub: the kernel ties no process to its parent", file=sys.stderr)
        sys.exit(126)
    # The signal is not sent for a parent that was gone before it was asked for.
    if os.getppid() != parent:
        print("exec stub: the daemon is gone", file=sys.stderr)
        sys.exit(126)
    # An ignored signal stays ignored over exec, and this interpreter ignores these two.
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"exec stub: cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
