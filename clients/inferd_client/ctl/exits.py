"""The exit codes of inferdctl; scripts rely on them, and `inferdctl --help` lists them."""

DONE = 0
FAILED = 1
"""The request failed, or `status`: the daemon is not ready."""
NO_DAEMON = 2
"""No connection to a daemon came about."""
USAGE = 64
"""The command line makes no sense (EX_USAGE of sysexits.h: 2 has another meaning here)."""
INTERRUPTED = 130
"""Ctrl-C."""
