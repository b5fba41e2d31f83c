"""llama.cpp's log within a process of ours: it is written by a thread, which an exit leaves behind.

Used by the processes that hold the bundled engine, once that is loaded; the daemon never calls it.
"""

import ctypes
import sys
from contextlib import suppress

MODULE = "xllamacpp.xllamacpp"
MAIN_LOG = "_Z15common_log_mainv"
FLUSH = "_Z16common_log_flushP10common_log"


def flush() -> None:
    """Returns once all that was logged so far is written. Nothing where the engine has no such way.

    Without it a busy machine loses why a model did not load.
    """
    path = getattr(sys.modules.get(MODULE), "__file__", None)
    if path is None:
        return
    with suppress(OSError, AttributeError):  # a wheel that is built otherwise
        library = ctypes.CDLL(path)
        main_log = library[MAIN_LOG]
        main_log.restype = ctypes.c_void_p
        library[FLUSH](ctypes.c_void_p(main_log()))
