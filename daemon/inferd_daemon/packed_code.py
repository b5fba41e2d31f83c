"""The program's modules in one file: compiled already, and with what importing them works out.

One process, whose imports are taken down, packs; the next one of the same Python loads. Never
decides what is loaded, and where anything is amiss the files serve as well.
"""

# Each module that this one imports at once is loaded from its file, so there are next to none.
from __future__ import annotations

import builtins
import importlib
import marshal
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from types import CodeType, FrameType, ModuleType
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Compile = Callable[..., object]

Place = tuple[str, "str | None", "list[str] | None", int, int]
"""Of a module: its file, that of its bytecode, the search path of a package, where its code begins
and ends; 0 and 0 where it stands in the index, or nowhere: that of an extension."""
VERSION = f"{sys.version} {sys.implementation.cache_tag}"
"""Code, marshal and the engine of `re` are private to one Python."""
HEAD_BYTES = 8
"""Before the index stands its length."""
ENGINE = "re._compiler"
FINDS = "ctypes.util"
LIBRARY = "pthread"
"""trio names its threads by it, and starts a process of ldconfig to ask where it is."""
WRITERS = {"collections": ("eval", eval), "dataclasses": ("exec", exec)}
"""Modules that write methods as source, and by what they have it compiled and run."""
SALTER = "attr._make"
"""Writes methods into which it puts a hash of the name of their class, another in each process."""
INHERITED = 0x1FE0000
"""Flags of code that its `__future__` imports set, and that what it compiles inherits."""
_compile: Compile = builtins.compile


class Recording:
    """Takes down what imports work out, from `begin` to `end`.

    What `compile` made of source (attrs writes methods), what `re` made of patterns, and what is
    not installed.
    """

    def __init__(self) -> None:
        self.compiled: dict[tuple[object, ...], object] = {}
        self.patterns: dict[tuple[object, ...], tuple[object, ...]] = {}
        self.absent: list[str] = []
        self._made: tuple[object, ...] = ()

    def begin(self) -> None:
        """From here on."""
        self._engine = importlib.import_module(ENGINE)
        self._translate: Compile = self._engine.compile
        self._sre: ModuleType = self._engine._sre
        vars(self._engine).update(_sre=self, compile=self._note_pattern)
        vars(builtins).update(compile=self._note_code)
        _shadow_writers(self._note_code)
        sys.meta_path.append(self)

    def end(self) -> None:
        """Leave everything as it was."""
        sys.meta_path.remove(self)
        _unshadow_writers()
        vars(builtins).update(compile=_compile)
        vars(self._engine).update(_sre=self._sre, compile=self._translate)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """The last finder: what comes here, nobody found."""
        self.absent.append(name)

    def _note_code(
        self,
        source: object,
        filename: object,
        mode: object,
        flags: int = 0,
        dont_inherit: bool = False,
        optimize: int = -1,
        **more: object,
    ) -> object:
        flags |= _inherited(sys._getframe(1), dont_inherit)
        made = _compile(source, filename, mode, flags, True, optimize, **more)
        if type(source) is str and optimize == -1 and not more:
            self.compiled[source, filename, mode, flags] = made
        return made

    def _note_pattern(self, pattern: object, flags: int = 0) -> object:
        made = self._translate(pattern, flags)
        if type(pattern) in (str, bytes):
            self.patterns[pattern, int(flags)] = self._made
        return made

    def compile(self, pattern: object, flags: int, code: Iterable[int], *groups: object) -> object:
        """As `_sre.compile`; its numbers are of a kind that marshal does not take."""
        self._made = (pattern, int(flags), [*map(int, code)], *groups)
        return self._sre.compile(*self._made)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sre, name)


class PackedLoader(SourceFileLoader):
    """As the loader of the file, but for where the code comes from."""

    def __init__(self, name: str, path: str, code: CodeType | memoryview) -> None:
        super().__init__(name, path)
        self._code: CodeType | memoryview | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        """Compiled already, once; who asks again gets that of the file."""
        packed, self._code = self._code, None
        if packed is None or fullname != self.name:
            return super().get_code(fullname)
        return packed if isinstance(packed, CodeType) else marshal.loads(packed)


class Replay:
    """Answers as it was when `data` was packed, until `end`.

    Modules that are loaded later (the HTTP front is) still come from `data`, each once.
    """

    def __init__(self, data: memoryview) -> None:
        """Raises ValueError, EOFError or TypeError for what is no packed code of this Python."""
        length = int.from_bytes(data[:HEAD_BYTES], "little")
        rest = data[HEAD_BYTES:]
        version, enclosed, *index = marshal.loads(rest[:length])
        if version != VERSION:
            raise ValueError(version)
        self.enclosed: bytes = enclosed
        """What `pack` was given besides."""
        self._code = rest[length:]
        self._ended = False
        self._places: dict[str, Place]
        self._loaded: dict[str, CodeType]
        self._absent: list[str]
        self._compiled: dict[tuple[object, ...], object]
        self._patterns: dict[tuple[object, ...], tuple[object, ...]]
        self._libraries: dict[str, str | None]
        (
            self._places,
            self._loaded,
            self._absent,
            self._compiled,
            self._patterns,
            self._libraries,
        ) = index
        for name in self._absent:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        sys.meta_path.insert(0, self)
        vars(builtins).update(compile=self._compile)
        self._engine = importlib.import_module(ENGINE)
        self._translate: Compile = self._engine.compile
        self._make: Compile = self._engine._sre.compile
        vars(self._engine).update(compile=self._pattern)
        _shadow_writers(self._compile)
        self._ctypes = importlib.import_module("ctypes")
        self._finds = ModuleType(FINDS)
        vars(self._finds).update(find_library=self._library)
        if FINDS not in sys.modules:
            sys.modules[FINDS] = self._finds
            vars(self._ctypes).update(util=self._finds)

    def end(self) -> None:
        """Leave everything as it was, but for finding what is not loaded yet."""
        for name in self._places.keys() & sys.modules.keys():
            del self._places[name]
            self._loaded.pop(name, None)
        self._ended = True
        self._let_go()
        self._compiled, self._patterns = {}, {}
        vars(builtins).update(compile=_compile)
        vars(self._engine).update(compile=self._translate)
        _unshadow_writers()
        self._give_back_libraries()
        for name in self._absent:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        place = self._places.pop(name, None)
        if place is None:
            return None
        origin, cached, paths, begins, ends = place
        code = self._loaded.pop(name, None)
        if code is None and begins == ends:
            loader: SourceFileLoader | ExtensionFileLoader = ExtensionFileLoader(name, origin)
        else:
            loader = PackedLoader(name, origin, code or self._code[begins:ends])
        spec = ModuleSpec(name, loader, origin=origin)
        spec.submodule_search_locations = paths
        spec.has_location = True
        spec.cached = cached
        if self._ended:
            self._let_go()
        return spec

    def _let_go(self) -> None:
        """Of the file, once all of it is loaded."""
        if not self._places and self in sys.meta_path:
            sys.meta_path.remove(self)
            self._code = memoryview(b"")

    def _compile(
        self,
        source: object,
        filename: object,
        mode: object,
        flags: int = 0,
        dont_inherit: bool = False,
        optimize: int = -1,
        **more: object,
    ) -> object:
        flags |= _inherited(sys._getframe(1), dont_inherit)
        if type(source) is str and optimize == -1 and not more:
            made = self._compiled.get((source, filename, mode, flags))
            if made is not None:
                return made
        return _compile(source, filename, mode, flags, True, optimize, **more)

    def _pattern(self, pattern: object, flags: int = 0) -> object:
        made = self._patterns.get((pattern, flags)) if type(pattern) in (str, bytes) else None
        return self._translate(pattern, flags) if made is None else self._make(*made)

    def _library(self, name: str) -> str | None:
        if name in self._libraries:
            return self._libraries[name]
        self._give_back_libraries()
        return _find_library(name)

    def _give_back_libraries(self) -> None:
        if sys.modules.get(FINDS) is self._finds:
            del sys.modules[FINDS], vars(self._ctypes)["util"]


def pack(
    at_once: Iterable[str], later: Iterable[str], recorded: Recording, enclosed: bytes
) -> bytes:
    """Those of the loaded modules that come from files, with what was `recorded`.

    What is needed `at_once` is read in one go: the names that its modules share are read once.
    """
    at_once = {*at_once}
    places: dict[str, Place] = {}
    loaded: dict[str, CodeType | None] = {}
    code = bytearray()
    for name in at_once.union(later):
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is None or spec.name != name or name == FINDS:
            continue
        begins = len(code)
        if isinstance(spec.loader, SourceFileLoader):
            if name in at_once:
                loaded[name] = spec.loader.get_code(name)
            else:
                code += marshal.dumps(spec.loader.get_code(name))
        elif not isinstance(spec.loader, ExtensionFileLoader):
            continue
        paths = spec.submodule_search_locations
        places[name] = (
            spec.origin,
            spec.cached,
            None if paths is None else list(paths),
            begins,
            len(code),
        )
    index = (places, loaded, recorded.absent, recorded.compiled, recorded.patterns)
    head = marshal.dumps((VERSION, enclosed, *index, {LIBRARY: _find_library(LIBRARY)}))
    return len(head).to_bytes(HEAD_BYTES, "little") + head + code


def read(descriptor: str) -> Replay | None:
    """None where it is of another Python, or not there: the files serve as well."""
    from mmap import ACCESS_READ, mmap

    try:
        with open(int(descriptor), "rb") as file:
            return Replay(memoryview(mmap(file.fileno(), 0, access=ACCESS_READ)))
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _find_library(name: str) -> str | None:
    found: str | None = importlib.import_module(FINDS).find_library(name)
    return found


def _shadow_writers(compiles: Compile) -> None:
    """Have each look its `compiles` up as a name of its own, before that of everybody."""
    for module, (name, run) in WRITERS.items():

        def written(source: object, *names: object, mode: str = name, run: Compile = run) -> object:
            if type(source) is str:
                source = compiles(source, "<string>", mode, 0, True)
            return run(source, *names)

        vars(importlib.import_module(module))[name] = written
    vars(importlib.import_module(SALTER))["hash"] = _same_hash


def _unshadow_writers() -> None:
    for module, (name, _) in WRITERS.items():
        del vars(importlib.import_module(module))[name]
    del vars(importlib.import_module(SALTER))["hash"]


def _same_hash(name: str) -> int:
    """Written out it is as good as any: what it is mixed with is hashed as ever."""
    return crc32(name.encode())


def _inherited(caller: FrameType, dont_inherit: bool) -> int:
    """The flags that `compile` would take from who calls it."""
    return 0 if dont_inherit else caller.f_code.co_flags & INHERITED
