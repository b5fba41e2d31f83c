"""Quicker imports load the same program, and leave the interpreter as they found it."""

import subprocess
import sys
from pathlib import Path

import pytest

from inferd_daemon.lean_imports import PACK_VARIABLE, POSTPONED, UNTOUCHED, UNUSED, VARIABLE

MODULE = """
from __future__ import annotations
import _socket, re
try:
    import nowhere
except ImportError:
    nowhere = None
NAME = {name!r}
FILE = __file__

class Thing:
    pass

def made(source):
    names = {{}}
    exec(compile(source, "made up", "exec"), names)
    return names["f"].__annotations__

FOUND = [
    nowhere,
    made("def f(x: 1 + 1): pass"),
    re.compile(r"(?P<a>[a-z]+)(?:\\d|(é))?", re.I).sub(r"<\\g<a>>", "Ab3"),
    re.compile(rb"\\w{{2}}").findall(b"abc"),
]
"""
FOR_OTHERS = ("anyio", "hypercorn", "prometheus_client", "starlette", "xllamacpp")
"""What the daemon loads once it serves, if ever: clients wait for whatever it loads before."""
SAME = "[None, {'x': '1 + 1'}, '<Ab>', [b'ab']]"


def run(code: str, directory: Path, *passed: int) -> str:
    """What a fresh interpreter prints, in which `directory` is on the path."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, passed)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=directory,
        pass_fds=passed,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PACK = f"""
import os, sys
from inferd_daemon.lean_imports import LeanImports
lean = LeanImports({{"{PACK_VARIABLE}": ""}})
import package.module
lean.done()
with open(1, "wb", closefd=False) as out:  # a pipe may take a part at a time
    out.write(lean.pack(sys.modules).hex().encode())
"""
LOAD = f"""
import ctypes, os, re, sys
from inferd_daemon.lean_imports import LeanImports
def seen():
    return [*sys.meta_path], compile, re._compiler.compile, re._compiler._sre
before = seen()
lean = LeanImports({{"{VARIABLE}": sys.argv[1]}})
import package.module
module = package.module
lean.done()
assert seen() == before
assert "ctypes.util" not in sys.modules and not hasattr(ctypes, "util")
assert [name for name, module in sys.modules.items() if module is None] == ["httpx._main"]
print(module.NAME, module.FILE, package.__path__, module.Thing.__module__, module.FOUND)
print(module.__spec__.loader.__class__.__name__, module._socket.__spec__.origin)
"""
PLAIN = """
import package.module
module = package.module
print(module.NAME, module.FILE, package.__path__, module.Thing.__module__, module.FOUND)
print(module.__spec__.loader.__class__.__name__, module._socket.__spec__.origin)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(MODULE.format(name="checked"))
    return tmp_path


def load(directory: Path, packed: bytes, code: str = LOAD) -> str:
    with (directory / "packed").open("w+b") as file:
        file.write(packed)
        file.flush()
        return run(code, directory, file.fileno())


def test_what_was_packed_is_what_is_loaded(directory: Path) -> None:
    plain = run(PLAIN, directory)
    packed = bytes.fromhex(run(PACK, directory))
    module = directory / "package" / "module.py"
    module.write_text(MODULE.format(name="changed since"))
    (directory / "nowhere.py").write_text("")
    loaded = load(directory, packed)
    assert loaded == plain.replace("SourceFileLoader", "PackedLoader")
    assert loaded.startswith(f"checked {module} ['{directory}/package'] package.module {SAME}\n")


def test_what_only_the_packing_needed_hinders_nobody_later(directory: Path) -> None:
    """Finding a library loads modules that the daemon may load long after."""
    packed = bytes.fromhex(run(PACK, directory))
    code = LOAD + "import tempfile; print(tempfile.__spec__.loader.__class__.__name__)"
    assert load(directory, packed, code).endswith("Loader")


LOAD_LATER = (
    LOAD[: LOAD.index("import package.module")]
    + """
import package
lean.done()
assert len(sys.meta_path) == len(before[0]) + 1
assert (compile, re._compiler.compile, re._compiler._sre) == before[1:]
import package.module
assert sys.meta_path == before[0]
open_files = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
assert not [name for name in open_files if name.endswith("/packed")], open_files
print(package.module.NAME, package.module.__spec__.loader.__class__.__name__)
"""
)


def test_what_is_loaded_later_is_what_was_packed_and_then_the_file_is_let_go(
    directory: Path,
) -> None:
    packed = bytes.fromhex(run(PACK, directory))
    (directory / "package" / "module.py").write_text(MODULE.format(name="changed since"))
    assert load(directory, packed, LOAD_LATER) == "checked PackedLoader"


def test_what_was_not_taken_down_is_worked_out(directory: Path) -> None:
    code = PACK.replace("lean.done()", "lean._recording.compiled.clear()\nlean.done()")
    code = code.replace("lean.done()", "lean._recording.patterns.clear()\nlean.done()")
    assert SAME in load(directory, bytes.fromhex(run(code, directory)))


@pytest.mark.parametrize("spoiled", ["nothing", "another Python", "cut", "no code"])
def test_what_cannot_be_used_is_loaded_from_its_files(directory: Path, spoiled: str) -> None:
    packed = bytes.fromhex(run(PACK, directory))
    other = {
        "nothing": b"",
        "another Python": packed.replace(sys.version[:6].encode(), b"9.99.9"),
        "cut": packed[:100],
        "no code": b"\x08" + bytes(40),
    }[spoiled]
    assert other != packed
    loaded = load(directory, other)
    assert loaded.startswith("checked ")
    assert "SourceFileLoader" in loaded


def test_a_descriptor_that_is_not_open_is_passed_over(directory: Path) -> None:
    code = LOAD.replace("sys.argv[1]", '"999999"')
    assert run(code, directory).startswith("checked ")


@pytest.mark.parametrize(
    ("environ", "allowed"),
    [({}, {"hashlib", "httpx"}), ({PACK_VARIABLE: "of nobody"}, set())],
    ids=["nobody waits", "clients wait"],
)
def test_the_daemon_is_loaded_without_what_it_does_not_use(
    tmp_path: Path, environ: dict[str, str], allowed: set[str]
) -> None:
    code = f"""
import gc, os, sys
os.environ.update({environ!r})
import inferd_daemon.main
assert gc.isenabled()
loaded = set({(*UNUSED, *UNTOUCHED, *POSTPONED, *FOR_OTHERS)!r}) & set(sys.modules)
assert loaded == {allowed or "set()"}, loaded
import inferd_daemon.lean_imports as lean
for name in lean.LATE:
    lean.import_later(name)
loaded = set({(*FOR_OTHERS, "click", "rich", "ssl")!r}) & set(sys.modules)
assert not loaded, loaded
import asyncio, rich.console, click, structlog, trio, attrs, ssl
assert trio.SSLStream.__init__.__globals__["_stdlib_ssl"].SSLContext is ssl.SSLContext
assert trio.DTLSEndpoint is trio._dtls.DTLSEndpoint and not hasattr(trio, "nowhere")
assert trio.Path("a").name == "a" and trio.wrap_file
assert attrs.validators.instance_of is attrs.validators.instance_of
print(asyncio.run.__name__, rich.console.Console.__name__, structlog.stdlib.BoundLogger.__name__)
"""
    assert run(code, tmp_path) == "run Console BoundLogger"
