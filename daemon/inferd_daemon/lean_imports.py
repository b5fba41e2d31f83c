"""Makes the imports that follow quicker: an upgrade in place leaves its clients waiting for them.

Import it first, and call `done` once the program is loaded. Changes only how much is loaded and
when memory is swept, never what a module of ours does.
"""

import gc
import sys

UNUSED = ("rich", "click", "pygments")
"""What structlog and httpx load where it is there, for terminals and a command line: a fifth of
the daemon's start, for nothing that it uses."""


def begin() -> None:
    """Keep the unused out, and the collector from walking through what is just being loaded."""
    gc.disable()
    for name in UNUSED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


def done() -> None:
    """Let everybody import everything again. What is loaded by now is never swept again."""
    for name in UNUSED:
        if sys.modules.get(name, ...) is None:
            del sys.modules[name]
    gc.freeze()
    gc.enable()


begin()
