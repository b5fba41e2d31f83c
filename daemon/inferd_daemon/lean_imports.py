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
UNUSED = ("rich", "click", "pygments", "structlog.twisted", "typing_extensions")
"""What structlog and msgspec load where it is there and do without elsewhere: terminals, another
loop, types of later Pythons. A fifth of the start, for nothing in use."""
NEVER = "httpx._main"
"""httpx's own command line, which loads all of a terminal. Kept out for good: httpx is loaded by
whoever needs it first."""
UNTOUCHED = (
    "argparse",
    "asyncio",
    "attr.filters",
    "attrs.converters",
    "attrs.filters",
    "attrs.validators",
    "bz2",
    "difflib",
    "hashlib",
    "hmac",
    "httptools",
    "httpx",
    "ipaddress",
    "lzma",
    "msgspec.inspect",
    "secrets",
    "ssl",
    "structlog.stdlib",
    "structlog.threadlocal",
    "termios",
    "tomllib",
)
"""What the daemon, trio, attrs, structlog, msgspec and shutil import for uses that come seldom,
never, or only once it serves."""
UNTOUCHED_LATER = ("bz2", "lzma", "ssl")
"""Of those, what can be stood in for while other threads import: they have no modules below."""
LATE = (
    "email.message",
    "http.client",
    "urllib.request",
    "http.cookiejar",
    "httpx",
    "inferd_daemon.backends.transport",
    "inferd_daemon.backends.relaying_client",
)
"""What no first answer needs and most daemons need soon: the client of runtimes and upstreams, and
before it, piece by piece, what it needs. An upgraded daemon has them by `import_later`, once it
serves."""
POSTPONED = dict.fromkeys(
    ("trio._dtls", "trio._file_io", "trio._highlevel_ssl_helpers", "trio._path", "trio._ssl"),
    "trio",
)
"""Parts that have names in the package around them, where those look for them who want them."""


class _Untouched(ModuleType):
    """Stands in for a module until somebody uses it."""

    def __getattr__(self, name: str) -> object:
        if name in ("__path__", "__file__"):  # for who only asks what it is
            raise AttributeError(name)
        with _standing_in:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        found = getattr(import_later(self.__name__), name)
        if not name.startswith("__"):
            vars(self)[name] = found
        return found


class _Postponed(ModuleType):
    """Stands in for a part until `open`; whatever it is asked for meanwhile is itself."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def open(self, package: ModuleType) -> None:
        """From now on the part is loaded once `package` is asked for a name of it."""
        del sys.modules[self.__name__]
        names = [name for name, found in vars(package).items() if found is self]
        for name in names:
            delattr(package, name)
        others = vars(package).get("__getattr__", _none_other)

        def find(name: str) -> object:
            if name not in names:
                return others(name)
            return getattr(importlib.import_module(self.__name__), name)

        vars(package)["__getattr__"] = find


def import_later(name: str) -> ModuleType:
    """Import one more module, about as lean, while everybody may import everything."""
    others = {*UNTOUCHED_LATER} - {name} - sys.modules.keys()
    for untouched in others:
        sys.modules[untouched] = _Untouched(untouched)
    try:
        return importlib.import_module(name)
    finally:
        _give_way(others)


def _give_way(names: Iterable[str]) -> None:
    """Of stand-ins to what they stand in for."""
    for name in names:
        if isinstance(sys.modules.get(name, ...), _Untouched | None):
            del sys.modules[name]


def _none_other(name: str) -> object:
    raise AttributeError(name)


class LeanImports:
    """One loading of the program. Call `done` once it is through."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Keep the unused out, and the collector from walking through what is just being loaded.

        Where `environ` names packed code, that is what is loaded; where it wants some, what goes
        into it besides the modules is taken down.
        """
        gc.disable()
        for name in (NEVER, *UNUSED):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        for name in UNTOUCHED:
            sys.modules.setdefault(name, _Untouched(name))
        for name in POSTPONED:
            sys.modules.setdefault(name, _Postponed(name))
        named = environ.pop(VARIABLE, None)
        self._replay: Replay | None = None if named is None else read(named)
        self._recording = Recording()
        self._records = PACK_VARIABLE in environ
        self._loaded: list[str] = []
        if self._records:
            self._recording.begin()

    def done(self) -> None:
        """Let everybody import everything again. What is loaded by now is never swept again."""
        if self._replay is not None:
            self._replay.end()
        if self._records:
            self._recording.end()
            self._loaded = [*sys.modules]
        _give_way((*UNUSED, *UNTOUCHED))
        for name, package in POSTPONED.items():
            if isinstance(part := sys.modules[name], _Postponed):
                part.open(sys.modules.get(package, part))
        gc.freeze()
        gc.enable()

    @property
    def hurried(self) -> bool:
        """Whether clients wait for this loading, or it shows what such a one needs."""
        return self._replay is not None or self._records

    @property
    def enclosed(self) -> bytes | None:
        """What was packed with the code; None where none was loaded."""
        return None if self._replay is None else self._replay.enclosed

    def pack(self, later: Iterable[str], enclosed: bytes = b"") -> bytes:
        """What was loaded and taken down, and the modules of `later`, for the next process."""
        return pack(self._loaded, later, self._recording, enclosed)


_standing_in = allocate_lock()
