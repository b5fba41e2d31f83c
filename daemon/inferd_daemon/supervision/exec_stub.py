"""Runs between fork and exec of every child: ties its life to the daemon's, then becomes it.

    python -IS exec_stub.py PARENT_PID PROGRAM [ARGUMENT ...]

Run as a script by a bare interpreter, so it imports nothing of inferd. Exits with 126 when the
daemon died before the tie was made, with 127 when PROGRAM cannot be run.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The signal is not sent for a parent that was gone before it was asked for.
    if os.getppid() != parent:
        print("exec stub: the daemon is gone", file=sys.stderr)
        sys.exit(126)
    # An ignored signal stays ignored over exec, and this interpreter ignores these two.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"exec stub: cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
