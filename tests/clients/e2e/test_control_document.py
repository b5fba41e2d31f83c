"""The conversation of CONTROL.md with a real daemon: what it answers has the form that is told."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import inferd_proto
from tests.proto.control_document import Exchange, Json, block, conversation
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.fake_ollama import FakeOllama, fake_ollama
from tests.support.lease_client import MODEL, ask, leasing_daemon
from tests.support.scripted_agent_cli import write_cli
from tests.support.wire_client import WireClient, connected

PATIENCE_S = 60.0
MAY_BE_MISSING = {"pid", "memory_bytes"}
"""Of a runtime that was restarted a moment ago."""
RARELY_LOOKED_AT = {"health_interval_ms": 60_000}
"""A server that gets no turn for seconds is `unhealthy`, and that is not what is told."""


@contextmanager
def daemon_of_the_document(directory: Path) -> Iterator[RunningDaemon]:
    """Its configuration, with the paths and the port of this machine."""
    config = block("toml", "config")
    for told, real in (
        ("/models/inferd-demo.gguf", MODEL),
        ("/usr/local/bin/claude", str(write_cli(directory, logged_in=False))),
        ("127.0.0.1:8417", "127.0.0.1:0"),
        ("parallel = 2", "parallel = 2\nhealth_interval_ms = 60000"),
    ):
        assert told in config
        config = config.replace(told, real)
    with leasing_daemon(config, server="") as daemon:
        yield daemon


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    """A service to attach to, as that of the document."""
    has, runs = {"qwen3:8b": ["completion", "tools"]}, {"qwen3:8b": 4096}
    with fake_ollama(installed=has, running=runs) as service:
        yield service


class Conversation:
    """Says what the document says, with the references that the real answers gave."""

    def __init__(self, client: WireClient, names: dict[str, str]) -> None:
        self._client = client
        self._names = names
        self._heard: dict[str, list[Json]] = {}

    def hold(self, exchange: Exchange) -> None:
        """One request and its answers, each of the form that is told."""
        request = self._real(exchange.request)
        self._client.say(**request)
        for told in exchange.answers:
            real = self._next(told["id"])
            while _is_another_change(told, real):
                real = self._next(told["id"])
            self._compare(told, real, str(request["op"]))

    def _next(self, request_id: str) -> Json:
        while not self._heard.get(request_id):
            answer = self._client.hear()
            self._heard.setdefault(answer["id"], []).append(answer)
        return self._heard[request_id].pop(0)

    def _real(self, told: Any) -> Any:  # noqa: ANN401 (JSON)
        match told:
            case dict():
                real = {name: self._real(value) for name, value in told.items()}
                return real | RARELY_LOOKED_AT if "root_url" in real else real
            case str():
                return self._names.get(told, told)
            case _:
                return told

    def _compare(self, told: Any, real: Any, at: str) -> None:  # noqa: ANN401 (JSON)
        if at.endswith(tuple(MAY_BE_MISSING)) and None in (told, real):
            return
        match told, real:
            case dict(), dict() if at.endswith(("metadata.metadata", "context")):
                return
            case dict(), dict():
                assert list(told) == list(real), at
                for name in told:
                    self._compare(told[name], real[name], f"{at}.{name}")
            case list(), list() if at == "metrics.value.metrics":
                named = {family["name"]: family for family in real}
                for family in told:
                    self._compare(family, named[family["name"]], f"{at}.{family['name']}")
            case list(), list():
                assert len(told) == len(real), at
                pairs = zip(_in_order(told), _in_order(real), strict=True)
                for index, (one, other) in enumerate(pairs):
                    self._compare(one, other, f"{at}[{index}]")
            case str(), str():
                self._same_word(told, real, at)
            case (bool(), bool()) | (None, None):
                pass
            case ((int() | float()), (int() | float())):
                assert bool not in (type(told), type(real)), at
            case _:
                raise AssertionError(f"{at}: {told!r} is told, {real!r} came")

    def _same_word(self, told: str, real: str, at: str) -> None:
        field = at.rpartition(".")[2]
        if field in ("lease_ref", "instance_key"):
            self._names[told] = real
        elif field in _WORDS:
            assert self._names.get(told, told) == real, at


def _is_another_change(told: Json, real: Json) -> bool:
    """Who watches is told of every change, also of those that a busy machine brings about."""
    change = real.get("value")
    if real["type"] != "item" or not isinstance(change, dict) or "type" not in change:
        return False
    return bool(told["type"] != "item" or told["value"]["type"] != change["type"])


def _in_order(items: list[Any]) -> list[Any]:
    """Leases that were granted in the same moment stand in any order."""
    if not all(isinstance(item, dict) and {"lease_ref", "ttl_ms"} <= item.keys() for item in items):
        return items
    return sorted(items, key=lambda lease: (lease["instance_key"], lease["owner_ref"] != ""))


_WORDS = {
    *("type", "id", "code", "state", "transport", "bind", "event", "verdict", "reason", "engine"),
    *("runtime_kind", "management_mode", "target_class", "protocol", "provider", "kind", "name"),
    *("contract_version", "owner_ref", "source_runtime", "provider_identity", "model_identity"),
}


def test_the_daemon_answers_as_it_stands_there(tmp_path: Path, ollama: FakeOllama) -> None:
    names = {"/models/inferd-demo.gguf": MODEL, "http://127.0.0.1:11434": ollama.root_url}
    with (
        daemon_of_the_document(tmp_path) as daemon,
        connected(daemon.socket, PATIENCE_S) as client,
    ):
        talk = Conversation(client, names)
        upgrades = 0
        for exchange in conversation():
            talk.hold(exchange)
            if exchange.answers[-1].get("value") == {"state": "upgrading"}:
                upgrades += 1
                _await_upgrade(client, upgrades)
        assert upgrades == 2
        assert daemon.process.wait(PATIENCE_S) == 0


def _await_upgrade(client: WireClient, count: int) -> None:
    def upgraded() -> bool:
        done: int = ask(client, "status")["upgrades"]
        return done == count

    wait_until(upgraded, 10, "the upgrade")


def test_the_client_of_the_document_works(tmp_path: Path) -> None:
    protocol = files(inferd_proto).joinpath("PROTOCOL.md").read_text("utf-8")
    (wire,) = re.findall(r"^```python client\n(.*?)^```$", protocol, re.DOTALL | re.MULTILINE)
    script = wire.split("def generate")[0] + block("python", "client")
    with daemon_of_the_document(tmp_path) as daemon:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"INFERD_SOCKET": str(daemon.socket)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout) > 5
        with connected(daemon.socket) as client:
            assert ask(client, "lease.list") == {"leases": []}
