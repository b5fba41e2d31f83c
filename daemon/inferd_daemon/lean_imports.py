"""Makes the imports that follow quicker: an upgrade in place leaves its clients waiting for them.

Call `begin` before them, and `done` once the program is loaded. Changes only how much is loaded,
from where, and when memory is swept; never what a module of ours does.
"""

import gc
import marshal
import struct
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, spec_from_file_location
from mmap import ACCESS_READ, mmap
from types import CodeType, ModuleType

VARIABLE = "INFERD_CODE_FD"
"""Names the descriptor of a file with packed code, which is read once."""
PACK_VARIABLE = "INFERD_PACK_FD"
"""Names the descriptor of a file that packed code is wanted in."""
UNUSED = ("rich", "click", "pygments")
"""What structlog and httpx load where it is there, for terminals and a command line: a fifth of
the daemon's start, for nothing that it uses."""
UNTOUCHED = ("asyncio",)
"""What structlog imports for loggers that the daemon has none of."""

Place = tuple[str, list[str] | None, int, int]
"""Of a module: its file, the search path of a package, where its code begins and ends."""
HEAD = struct.Struct("4sI")
"""Before the index of packed code: which Python reads it, and the length of the index."""


class _Untouched(ModuleType):
    """Stands in for a module that nobody uses while the program is loaded."""


def pack(names: Iterable[str]) -> bytes:
    """The code of those of the loaded modules that come from source files, for `begin`."""
    index: dict[str, Place] = {}
    code = bytearray()
    for name in names:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is None or not isinstance(spec.loader, SourceFileLoader) or spec.name != name:
            continue
        paths = spec.submodule_search_locations
        begins = len(code)
        code += marshal.dumps(spec.loader.get_code(name))
        index[name] = (spec.origin, None if paths is None else list(paths), begins, len(code))
    packed_index = marshal.dumps(index)
    return HEAD.pack(MAGIC_NUMBER, len(packed_index)) + packed_index + code


class PackedLoader(SourceFileLoader):
    """As the loader of the file, but for where the code comes from."""

    def __init__(self, name: str, path: str, code: memoryview) -> None:
        super().__init__(name, path)
        self._code: memoryview | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        """Compiled already, once; who asks again gets that of the file."""
        packed, self._code = self._code, None
        if packed is None or fullname != self.name:
            return super().get_code(fullname)
        code: CodeType = marshal.loads(packed)
        return code


class PackedFinder:
    """Finds modules in packed code, others not at all."""

    def __init__(self, index: Mapping[str, Place], code: memoryview) -> None:
        self._index = index
        self._code = code

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        place = self._index.get(name)
        if place is None:
            return None
        origin, paths, begins, ends = place
        loader = PackedLoader(name, origin, self._code[begins:ends])
        return spec_from_file_location(
            name, origin, loader=loader, submodule_search_locations=paths
        )


def begin(environ: MutableMapping[str, str]) -> None:
    """Keep the unused out, and the collector from walking through what is just being loaded.

    Where `environ` names packed code, that is what is loaded, until `done`.
    """
    gc.disable()
    for name in UNUSED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]
    for name in UNTOUCHED:
        sys.modules.setdefault(name, _Untouched(name))
    named = environ.pop(VARIABLE, None)
    if named is not None:
        finder = _read(named)
        if finder is not None:
            sys.meta_path.insert(0, finder)


def done() -> None:
    """Let everybody import everything again. What is loaded by now is never swept again."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, PackedFinder)]
    for name in (*UNUSED, *UNTOUCHED):
        if isinstance(sys.modules.get(name, ...), _Untouched | None):
            del sys.modules[name]
    gc.freeze()
    gc.enable()


def _read(named: str) -> PackedFinder | None:
    """None where it is of another Python, or not there: the files serve as well."""
    try:
        with open(int(named), "rb") as file:
            data = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
        magic, length = HEAD.unpack_from(data)
    except (OSError, ValueError, struct.error):
        return None
    if magic != MAGIC_NUMBER:
        return None
    rest = data[HEAD.size :]
    return PackedFinder(marshal.loads(rest[:length]), rest[length:])
