"""inferdctl's verbs for runtimes and leases on a real daemon with a real llama-server."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.e2e.leasing import daemon_with
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import MODEL
from tests.support.llama_server import llama_server_path

ABOUT_HOURS = {1: r"(1 h 0 min|59 min \d+ s)", 2: "(2 h 0 min|1 h 59 min)"}
"""A second may be over before the daemon answers."""
CTL = [sys.executable, "-m", "inferd_client.ctl"]


class Ctl:
    """Command lines against one daemon, each in a process of its own."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.environ = os.environ | {"INFERD_SOCKET": str(daemon.socket), "COLUMNS": "200"}
        self.directory = daemon.directory

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*CTL, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            cwd=self.directory,
        )

    def __call__(self, *argv: str, code: int = 0) -> str:
        """What it prints; to standard error where it has to fail."""
        with self.start(*argv) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{argv}: {process.returncode}\n{out}{err}"
        return err if code else out

    def json(self, *argv: str) -> dict[str, object]:
        told: dict[str, object] = json.loads(self(*argv, "--json"))
        return told

    def rows(self, *argv: str) -> list[list[str]]:
        return [line.split() for line in self(*argv).splitlines() if line.strip()][2:]


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with daemon_with(llama_server_path()) as running:
        yield running


@pytest.fixture
def ctl(daemon: RunningDaemon) -> Iterator[Ctl]:
    ctl = Ctl(daemon)
    yield ctl
    for key in ctl("ps", "-q").split():
        ctl("stop", "--force", key)


def test_a_model_from_load_to_unload(ctl: Ctl) -> None:
    assert ctl("ps") == "Nothing runs.\n"
    assert ctl("lease", "ensure", "chat", "--plan").splitlines()[-1] == "It fits."
    loaded = re.fullmatch(
        r"demo is ready; it stops in (\d+) s if nobody uses it\n", ctl("load", "chat")
    )
    assert loaded
    assert 0 < int(loaded[1]) <= 30
    ((name, state, health, pid, _, unit, held, *until, _),) = ctl.rows("ps")
    assert (name, state, health, unit, held) == ("demo", "ready", "healthy", "MiB", "0")
    assert (until[0], until[2]) == ("in", "s")
    os.kill(int(pid), 0)
    for hours in (1, 2):
        held = ctl("load", "gpt" if hours == 1 else "chat", "-k", f"{hours}h")
        assert re.match(rf"demo is ready; held for {ABOUT_HOURS[hours]} by lease-", held), held
    # The second took the place of the first.
    assert len(ctl("lease", "ls", "demo", "--owner", "inferdctl load", "-q").split()) == 1
    assert "in use" in ctl("stop", "demo", code=1)
    assert "in use" in ctl("restart", "demo", code=1)
    assert ctl("unload", "chat") == "demo is stopped\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert ctl("lease", "ls") == "There are no leases.\n"
    assert [row[:2] for row in ctl.rows("ps", "-a")] == [["demo", "stopped"]]


def test_a_file_is_leased_renewed_and_released(ctl: Ctl) -> None:
    shutil.copy(MODEL, ctl.directory / "tiny.gguf")
    settings = ["--set", "ctx_size=256", "--set", "threads=1"]
    told = ctl.json("lease", "ensure", "tiny.gguf", "--ttl", "1m", "--owner", "o", *settings)
    lease = told["lease"]
    assert isinstance(lease, dict)
    ref = lease["lease_ref"]
    assert lease["owner_ref"] == "o"
    assert re.fullmatch(
        f"{ref}: {ABOUT_HOURS[2]} left\n", ctl("lease", "renew", ref, "--ttl", "2h")
    )
    assert ctl("lease", "ls", "--owner", "o", "-q") == f"{ref}\n"
    assert ctl("lease", "ls", "tiny-", "-q") == f"{ref}\n"
    ctl("lease", "release", ref, ref)
    assert "there is no lease" in ctl("lease", "renew", ref, code=1)


def test_an_endpoint_serves_other_tools(ctl: Ctl) -> None:
    told = ctl.json("endpoint", "chat")
    endpoint = told["endpoint"]
    assert isinstance(endpoint, dict)
    env = dict(line.split("=", 1) for line in ctl("endpoint", "chat", "--env").split())
    assert env["OPENAI_BASE_URL"] == endpoint["base_url"]
    shown = ctl("endpoint", "chat")
    assert f"curl --unix-socket {endpoint['uds']} http://localhost/v1/models" in shown
    with httpx.Client(transport=httpx.HTTPTransport(uds=endpoint["uds"]), timeout=60) as tool:
        url = f"{env['OPENAI_BASE_URL']}/models"
        assert tool.get(url).status_code == 401
        answer = tool.get(url, headers={"Authorization": f"Bearer {env['OPENAI_API_KEY']}"})
        assert answer.json()["data"]
    # Tools that know only URLs.
    env = dict(line.split("=", 1) for line in ctl("endpoint", "chat", "--tcp", "--env").split())
    with httpx.Client(base_url=env["OPENAI_BASE_URL"], trust_env=False, timeout=60) as tool:
        assert tool.get("/models").status_code == 401
        answer = tool.get("/models", headers={"Authorization": f"Bearer {env['OPENAI_API_KEY']}"})
        assert answer.json()["data"]


def test_logs_and_changes_are_followed(ctl: Ctl) -> None:
    with ctl.start("watch", "--json") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["type"] == "snapshot"
        ctl("load", "chat")
        states = []
        while "ready" not in states:
            change = json.loads(watching.stdout.readline())
            if change["type"] == "runtime":
                states.append(change["runtime"]["state"])
        assert states[0] == "starting"
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
        assert watching.returncode == 130
    wait_until(lambda: "listening" in ctl("logs", "demo"), 5, "what the server wrote last")
    with ctl.start("logs", "-f", "-n", "1", "demo") as following:
        assert following.stdout is not None
        assert following.stdout.readline()  # it follows now: what comes next is not missed
        ctl("run", "chat", "Hi", "--max-tokens", "2")
        assert following.stdout.readline()
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=60)
        assert following.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_held_by_a_command_ends_with_it(ctl: Ctl, number: signal.Signals) -> None:
    with ctl.start("load", "chat", "--keep", "forever") as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline().startswith("demo is ready; held by lease-")
        assert len(ctl("lease", "ls", "-q").split()) == 1
        holding.send_signal(number)
        holding.communicate(timeout=60)
    wait_until(lambda: not ctl("lease", "ls", "-q"), 5, "the end of the lease")


def test_without_room_it_tells_who_is_in_the_way(ctl: Ctl, tmp_path: Path) -> None:
    for number in range(2):
        spec = tmp_path / f"{number}.json"
        spec.write_text(json.dumps({"model": MODEL, "ctx_size": 256 + number, "threads": 1}))
        ctl("lease", "ensure", f"@{spec}")
    refused = ctl("load", "chat", code=1)
    assert "one runtime fewer" in refused
    assert len(refused.splitlines()) == 1
    assert ctl("lease", "ensure", "chat", "--plan", code=1) == ""


def test_a_model_that_does_not_load_is_told_in_one_line(ctl: Ctl) -> None:
    (ctl.directory / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    failed = ctl("load", "bad.gguf", code=1)
    assert len(failed.splitlines()) == 1
