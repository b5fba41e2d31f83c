"""Makes the imports that follow quicker: an upgrade in place leaves its clients waiting for them.

Changes only how much is loaded,
from where, and when memory is swept; never what a module of ours does.
"""

# Each module that this one imports is loaded from its file, so it imports next to none.
from __future__ import annotations

import gc
import importlib
import sys
from _thread import allocate_lock
from types import ModuleType

from .packed_code import Recording, Replay, pack, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

VARIABLE = "INFERD_CODE_FD"
"""Names the descriptor of a file with packed code, which is read once."""
PACK_VARIABLE = "INFERD_PACK_FD"
"""Names the descriptor of a file that packed code is wanted in."""
UNUSED = ("rich", "click", "pygments", "httpx._main", "structlog.twisted", "typing_extensions")
"""What structlog, httpx and msgspec load where it is there and do without elsewhere: terminals, a
command line, another loop, types of later Pythons. A fifth of the start, for nothing in use."""
UNTOUCHED = (
    "asyncio",
    "attr.filters",
    "attrs.converters",
    "attrs.filters",
    "attrs.validators",
    "bz2",
    "lzma",
    "msgspec.inspect",
    "ssl",
    "structlog.stdlib",
    "structlog.threadlocal",
)
"""What trio, attrs, structlog, msgspec and shutil import for uses that the daemon has seldom or
never."""


class _Untouched(ModuleType):
    """Stands in for a module until somebody uses it."""

    def __getattr__(self, name: str) -> object:
        if name in ("__path__", "__file__"):  # for who only asks what it is
            raise AttributeError(name)
        with _standing_in:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class LeanImports:
    """One loading of the program. Call `done` once it is through."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Keep the unused out, and the collector from walking through what is just being loaded.

        Where `environ` names packed code, that is what is loaded; where it wants some, what goes
        into it besides the modules is taken down.
        """
        gc.disable()
        for name in UNUSED:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        for name in UNTOUCHED:
            sys.modules.setdefault(name, _Untouched(name))
        named = environ.pop(VARIABLE, None)
        self._replay: Replay | None = None if named is None else read(named)
        self._recording = Recording()
        self._records = PACK_VARIABLE in environ
        if self._records:
            self._recording.begin()

    def done(self) -> None:
        """Let everybody import everything again. What is loaded by now is never swept again."""
        if self._replay is not None:
            self._replay.end()
        if self._records:
            self._recording.end()
        for name in (*UNUSED, *UNTOUCHED):
            if isinstance(sys.modules.get(name, ...), _Untouched | None):
                del sys.modules[name]
        gc.freeze()
        gc.enable()

    @property
    def enclosed(self) -> bytes | None:
        """What was packed with the code; None where none was loaded."""
        return None if self._replay is None else self._replay.enclosed

    def pack(self, names: Iterable[str], enclosed: bytes = b"") -> bytes:
        """The modules of `names` and what was taken down, for the next process."""
        return pack(names, self._recording, enclosed)


_standing_in = allocate_lock()
