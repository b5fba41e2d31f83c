"""Agents by inferdctl and the client library on a real daemon; the CLI is a scripted one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_client import Client, Incompatible
from inferd_client.blocking import Client as BlockingClient
from inferd_proto import ConsumerManifest
from tests.support.agent_client import agent_daemon
from tests.support.daemon import RunningDaemon, wait_until

CTL = [sys.executable, "-m", "inferd_client.ctl"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with agent_daemon(tmp_path, agents='models = ["opus", "haiku"]') as running:
        yield running


def ctl(daemon: RunningDaemon, *argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CTL, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"INFERD_SOCKET": str(daemon.socket), "COLUMNS": "200"},
    )


def test_questions_on_the_command_line(daemon: RunningDaemon) -> None:
    for argv in (
        ("run", "--agent", "claude", "say hello there"),
        ("run", "--agent", "claude", "haiku", "say hello there"),
        ("agent", "run", "claude", "say hello there", "--model", "haiku"),
    ):
        ran = ctl(daemon, *argv)
        assert (ran.returncode, ran.stdout) == (0, "hello there \n"), ran.stderr
    ran = ctl(daemon, "agent", "run", "claude", "say a b", "--json")
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["text", "text", "done"]
    assert lines[-1]["usage"] == {"input_tokens": 11, "output_tokens": 5}
    for prompt, said in (("failed 500", "500"), ("garbage", "no event")):
        ran = ctl(daemon, "agent", "run", "claude", prompt)
        assert ran.returncode == 1
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
    ran = ctl(daemon, "agent", "run", "claude", "hi", "--model", "sonnet")
    assert ran.returncode == 1
    assert "`model`" in ran.stderr
    assert "claude" in ctl(daemon, "agent", "ls").stdout
    assert ctl(daemon, "lease", "ls", "--json").stdout == '{"leases":[]}\n'


def test_an_agent_without_a_table_takes_its_own_model(tmp_path: Path) -> None:
    with agent_daemon(tmp_path) as daemon:
        ran = ctl(daemon, "run", "--agent", "claude", "say hello there")
        assert (ran.returncode, ran.stdout) == (0, "hello there \n"), ran.stderr


def test_ctrl_c_ends_the_run(daemon: RunningDaemon) -> None:
    with subprocess.Popen(
        [*CTL, "agent", "run", "claude", "drip"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"INFERD_SOCKET": str(daemon.socket)},
    ) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(4) == "drip"
        asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == 130
    wait_until(lambda: daemon.processes() == [daemon.pid], 5, "the end of the run")


def test_the_client_library_blocking(daemon: RunningDaemon) -> None:
    with BlockingClient(daemon.socket) as client:
        assert [agent.found for agent in client.agents() if agent.provider == "claude"] == [True]
        with client.lease(agent="claude", model="haiku") as lease, lease.http_client() as http:
            body = {"model": "haiku", "messages": [{"role": "user", "content": "say it"}]}
            answer = http.post("/chat/completions", json=body).json()
            assert answer["choices"][0]["message"]["content"] == "it "
        consumer = ConsumerManifest(required_capabilities={"tool_calling": True})
        with pytest.raises(Incompatible):
            client.ensure(agent="claude", consumer=consumer)


async def test_the_client_library_on_trio(daemon: RunningDaemon) -> None:
    async with (
        Client(daemon.socket) as client,
        client.lease(agent="claude") as lease,
        lease.http_client() as http,
    ):
        assert lease.endpoint.model_identity == "opus"
        body = {"messages": [{"role": "user", "content": "say it"}]}
        answer = (await http.post("/chat/completions", json=body)).json()
        assert answer["choices"][0]["message"]["content"] == "it "
