"""Which program is started, by configuration, environment or PATH."""

import platform
from pathlib import Path

import pytest

from inferd_daemon.engines.agents.binary import find_binary
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.errors import BackendFault

CODEX = PROFILES["codex"]


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_what_is_named_goes_before_path(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin/codex")
    by_name = program(tmp_path / "a/codex")
    configured = program(tmp_path / "b/codex")
    environment = {"PATH": str(on_path.parent)}
    assert find_binary(CODEX, environment) == on_path
    environment["INFERD_CODEX"] = str(by_name)
    assert find_binary(CODEX, environment) == by_name
    assert find_binary(CODEX, environment, str(configured)) == configured


def test_what_is_named_must_be_there(tmp_path: Path) -> None:
    program(tmp_path / "codex")
    environment = {"PATH": str(tmp_path), "INFERD_CODEX": "/no/such"}
    with pytest.raises(BackendFault, match="INFERD_CODEX names /no/such, which is no program"):
        find_binary(CODEX, environment)


def test_a_missing_one_says_what_to_install() -> None:
    with pytest.raises(BackendFault, match=r"npm package @openai/codex\); install it or set INF"):
        find_binary(CODEX, {"PATH": "/nowhere"})


@pytest.mark.parametrize("nested", [True, False])
def test_the_native_program_behind_the_script(tmp_path: Path, nested: bool) -> None:
    modules = tmp_path / "lib/node_modules"
    script = program(modules / "@openai/codex/bin/codex.js")
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    inside = modules / "@openai/codex/node_modules" if nested else modules
    native = program(inside / f"@openai/codex-linux-{machine}/vendor/some-triple/bin/codex")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/codex").symlink_to(script)
    environment = {"PATH": str(tmp_path / "bin")}
    assert find_binary(CODEX, environment) == native
    native.unlink()
    assert find_binary(CODEX, environment) == script
