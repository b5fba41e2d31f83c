"""`inferd` on the command line: what it says without serving."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import inferd_proto
from tests.support.daemon import environment, running_daemon
from tests.support.wire_client import connected

GOOD = """\
[backends.far]
kind = "openai_compat"
base_url = "http://localhost:1"
api_key = "sk-secret"
[backends.near]
kind = "mock"
[routes.chat]
backends = ["far", "near"]
"""


def inferd(
    directory: Path, *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inferd_daemon", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(directory, environ or {}),
        cwd=directory,
    )


def test_check_config_says_yes(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(GOOD)
    done = inferd(tmp_path, "--config", "c.toml", "--check-config")
    assert (done.returncode, done.stdout, done.stderr) == (0, "configuration is valid\n", "")


def test_check_config_lists_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[daemon]\nsocke = "x"\n[backends.a]\nkind = "mokc"\n')
    done = inferd(tmp_path, "--config", "c.toml", "--check-config")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "inferd: c.toml: 2 mistakes\n"
        "  line 2: daemon.socke: unknown key; did you mean `socket`?\n"
        "  line 4: backends.a.kind: 'mokc' is none of mock, libllama, "
    )


LACKING = """\
[daemon]
socket_group = "no such group"
[backends.a]
kind = "openai_compat"
base_url = "ftp://x"
[backends.b]
kind = "openai_compat"
api_key_file = "no-key"
[backends.c]
kind = "libllama"
model = "/nowhere/m.gguf"
"""


def test_check_config_tells_what_the_machine_lacks_beside_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(LACKING)
    done = inferd(tmp_path, "--config", "c.toml", "--check-config")
    assert (done.returncode, done.stdout) == (1, "")
    wrong = """\
  line 2: daemon.socket_group: there is no group 'no such group'
  line 5: backends.a.base_url: must be http://host or https://host, with a port if needed
  line 8: backends.b.api_key_file: cannot be read: No such file or directory
"""
    missing = "  line 11: backends.c.model: '/nowhere/m.gguf' cannot be read: No such file or"
    assert done.stderr == f"inferd: c.toml: 4 mistakes\n{wrong}{missing} directory\n"
    # A model may yet come: without it the others are served.
    assert inferd(tmp_path, "--config", "c.toml").stderr == f"inferd: c.toml: 3 mistakes\n{wrong}"


def test_the_words_of_the_command_line_are_checked_alike(tmp_path: Path) -> None:
    for arguments in (["--check-config"], []):
        done = inferd(tmp_path, "--openai", "ftp://x", *arguments)
        assert done.returncode == 1
        assert done.stderr == (
            "inferd: command line: 1 mistake\n  backends.openai.base_url: must be http://host or"
            " https://host, with a port if needed\n"
        )


def test_print_config_shows_the_whole_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(GOOD)
    arguments = ("--config", "c.toml", "--socket", "s.sock", "--log-level", "debug")
    done = inferd(tmp_path, *arguments, "--print-config")
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["daemon"]["socket"] == str(tmp_path / "s.sock")
    assert shown["daemon"]["log_level"] == "debug"
    assert shown["daemon"]["drain_timeout_s"] == 30.0
    assert shown["backends"]["far"]["api_key"] == "<secret>"
    assert "sk-secret" not in done.stdout


def test_the_file_is_found_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "named.toml").write_text("named = 1")
    home = tmp_path / ".config" / "inferd"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("home = 1")
    named = inferd(tmp_path, "--check-config", environ={"INFERD_CONFIG": "named.toml"})
    assert "line 1: named: unknown key" in named.stderr
    assert "line 1: home: unknown key" in inferd(tmp_path, "--check-config").stderr


def test_without_any_configuration_it_says_what_to_give(tmp_path: Path) -> None:
    done = inferd(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "inferd: no configuration: give --demo, --model FILE.gguf or --config FILE"
        " (see inferd --help)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--demo", "--backend", "mock"), "not allowed with"),
        (("--openai-model", "x"), "--openai-model needs --openai"),
        (("--config", "c.toml", "--demo"), "--config excludes"),
        (("--backend", "nothing"), "invalid choice"),
        (("--no-such-option",), "unrecognized arguments"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = inferd(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("usage: inferd ")


def test_version(tmp_path: Path) -> None:
    done = inferd(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"inferd {inferd_proto.__version__}\n")


def test_the_socket_follows_the_environment(tmp_path: Path) -> None:
    done = inferd(tmp_path, "--backend", "mock", "--print-config")
    assert json.loads(done.stdout)["daemon"]["socket"] is None
    with running_daemon("--backend", "mock") as daemon, connected(daemon.socket) as client:
        client.say(op="route.list", id="r")
        (route,) = client.hear()["value"]["routes"]
        assert (route["name"], route["default"], route["ready"]) == ("mock", True, True)
        client.say(op="capabilities", id="c")
        (backend,) = client.hear()["value"]["backends"]
        assert (backend["backend"], backend["wire_version"], backend["tools"]) == ("mock", 1, True)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            '[daemon]\nsocket_group = "no-such-group"\n',
            "socket_group: there is no group 'no-such-group'",
        ),
        ('[daemon]\nsocket = "/proc/no/x.sock"\n', "cannot make directory /proc/no: "),
        (f'[daemon]\nsocket = "/tmp/{"x" * 120}.sock"\n', "set INFERD_SOCKET to a shorter one"),
    ],
)
def test_a_socket_that_cannot_be(tmp_path: Path, config: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(config)
    named = ("--socket", "s.sock") if "group" in config else ()
    done = inferd(tmp_path, "--config", "c.toml", *named)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.is_socket()]
