"""What a probe tells of programs that are there, are not, or are not what they should be."""

import os
from pathlib import Path

import pytest
import trio

from inferd_daemon.engines.agents.profile import AgentProbe
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.supervision.agents import probe as probing
from inferd_daemon.supervision.agents.probe import probe

CLAUDE = PROFILES["claude"]
LOGGED_IN = """case "$*" in
--version) echo "2.1.197 (Claude Code)";;
"auth status") echo '{"loggedIn": true}';;
esac"""


def program(directory: Path, script: str) -> str:
    path = directory / "cli"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(directory), "FOREIGN": "x"}


def is_gone(directory: str) -> bool:
    return "inferd-probe-" in directory and not Path(directory).exists()


async def probed(directory: Path, script: str, provider: str = "claude") -> AgentProbe:
    binary = program(directory, script)
    with trio.fail_after(90):
        return await probe(PROFILES[provider], environment(directory), binary)


async def test_a_cli_that_is_there_and_logged_in(tmp_path: Path) -> None:
    found = await probed(tmp_path, LOGGED_IN)
    assert found == AgentProbe(tmp_path / "cli", "2.1.197", True, "")
    assert found.ready


async def test_a_cli_that_is_logged_out(tmp_path: Path) -> None:
    found = await probed(tmp_path, LOGGED_IN.replace("true", "false"))
    assert (found.version, found.logged_in, found.ready) == ("2.1.197", False, False)
    assert found.reason.startswith("claude: logged out: run `claude` once")


async def test_a_cli_that_is_missing(tmp_path: Path) -> None:
    found = await probe(CLAUDE, {"PATH": str(tmp_path)})
    assert found[:3] == (None, None, None)
    assert "is not installed" in found.reason
    assert not found.ready


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'cannot find node' >&2; exit 127", "no version (exit code 127): cannot find node"),
        ("kill -SEGV $$", "no version (SIGSEGV)"),
        ("echo hello", "no version (exit code 0): hello"),
    ],
)
async def test_what_is_no_such_cli(script: str, says: str, tmp_path: Path) -> None:
    found = await probed(tmp_path, script)
    assert (found.version, found.ready) == (None, False)
    assert says in found.reason


@pytest.mark.parametrize("script", ["sleep 1000", "yes"])
async def test_what_does_not_end(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "PROBE_TIMEOUT_S", 0.3)
    found = await probed(tmp_path, script)
    assert (found.version, found.ready) == (None, False)
    assert "--version` does not end" in found.reason


async def test_a_login_that_hangs_is_not_a_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = probing._ask

    async def ask_hastily(argv: list[str], *rest: dict[str, str]) -> object:
        # The version has all its time.
        monkeypatch.setattr(probing, "PROBE_TIMEOUT_S", 0.3 if "auth" in argv else 60.0)
        return await ask(argv, *rest)

    monkeypatch.setattr(probing, "_ask", ask_hastily)
    found = await probed(tmp_path, 'test "$1" = auth && sleep 1000; echo 1.0')
    assert (found.version, found.logged_in, found.ready) == ("1.0", None, True)
    assert found.reason.endswith("auth status` does not end")


async def test_a_login_that_tells_nothing_is_not_a_no(tmp_path: Path) -> None:
    found = await probed(tmp_path, LOGGED_IN.replace("loggedIn", "other"))
    assert (found.logged_in, found.ready) == (None, True)
    assert "did not say" in found.reason


async def test_an_accounts_file_is_a_login(tmp_path: Path) -> None:
    version = "echo 0.61.0"
    assert (await probed(tmp_path, version, "gemini")).logged_in is False
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini/oauth_creds.json").write_text("{}")
    assert (await probed(tmp_path, version, "gemini")).logged_in is True


async def test_it_is_asked_in_the_operators_home_and_with_nothing_else(tmp_path: Path) -> None:
    await probed(tmp_path, f"env > {tmp_path}/env-$1; pwd > {tmp_path}/pwd; {LOGGED_IN}")
    for name in ("env---version", "env-auth"):
        variables = (tmp_path / name).read_text()
        assert f"HOME={tmp_path}\n" in variables
        assert "FOREIGN" not in variables
        assert "DISABLE_AUTOUPDATER=1" in variables
        assert is_gone(dict(line.split("=", 1) for line in variables.splitlines())["TMPDIR"])
    assert (tmp_path / "pwd").read_text() == "/\n"
