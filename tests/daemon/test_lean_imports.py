"""Quicker imports load the same program, and leave the interpreter as they found it."""

import subprocess
import sys
from pathlib import Path

import pytest

from inferd_daemon.lean_imports import UNTOUCHED, UNUSED, VARIABLE

MODULE = "import gc\nNAME = {name!r}\nFILE = __file__\n\nclass Thing:\n    pass\n"


def run(code: str, directory: Path, *passed: int) -> str:
    """What a fresh interpreter prints, in which `directory` is on the path."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, passed)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=directory,
        pass_fds=passed,
    )
    return done.stdout.strip()


PACK = """
import os, sys
import package.module
from inferd_daemon.lean_imports import pack
sys.stdout.flush()
os.write(1, pack(sys.modules).hex().encode())
"""
LOAD = f"""
import sys
from inferd_daemon import lean_imports
finders = list(sys.meta_path)
lean_imports.begin({{"{VARIABLE}": sys.argv[1]}})
import package.module
lean_imports.done()
assert sys.meta_path == finders
module = package.module
print(module.NAME, module.FILE, package.__path__, module.Thing.__module__)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(MODULE.format(name="checked"))
    return tmp_path


def load(directory: Path, packed: bytes) -> str:
    with (directory / "packed").open("w+b") as file:
        file.write(packed)
        file.flush()
        return run(LOAD, directory, file.fileno())


def test_what_was_packed_is_what_is_loaded(directory: Path) -> None:
    packed = bytes.fromhex(run(PACK, directory))
    module = directory / "package" / "module.py"
    module.write_text(MODULE.format(name="changed since"))
    assert load(directory, packed) == (f"checked {module} ['{directory}/package'] package.module")


@pytest.mark.parametrize("spoiled", ["nothing", "another Python"])
def test_what_cannot_be_used_is_loaded_from_its_files(directory: Path, spoiled: str) -> None:
    packed = b"" if spoiled == "nothing" else b"\0" + bytes.fromhex(run(PACK, directory))[1:]
    assert load(directory, packed).startswith("checked ")


def test_a_descriptor_that_is_not_open_is_passed_over(directory: Path) -> None:
    code = LOAD.replace("sys.argv[1]", '"999999"')
    assert run(code, directory).startswith("checked ")


def test_the_daemon_is_loaded_without_what_it_does_not_use(tmp_path: Path) -> None:
    code = f"""
import gc, sys
import inferd_daemon.main
assert gc.isenabled()
assert not set({UNUSED + UNTOUCHED!r}) & set(sys.modules), sys.modules.keys()
import asyncio, rich.console, click
print(asyncio.run.__name__, rich.console.Console.__name__)
"""
    assert run(code, tmp_path) == "run Console"
