"""`keep_kv` on a backend of a real daemon: prompts go on after a swap, a restart, an upgrade."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import (
    Json,
    ask,
    complete,
    ensure,
    leasing_daemon,
    start_again,
    wait_runtime,
)
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import WireClient, connected

CONFIG = """
[limits]
max_runtimes = 1
[backends.kept]
kind = "llama_server"
model = "demo"
threads = 1
parallel = 1
keep_kv = true
[backends.forgetful]
kind = "llama_server"
model = "demo"
threads = 1
parallel = 1
ctx_size = 2048
[routes.kept]
backends = ["kept"]
[routes.forgetful]
backends = ["forgetful"]
"""
PROMPT = [{"role": "user", "content": " ".join(f"word{number}" for number in range(100))}]


@pytest.fixture
def server() -> Path:
    return llama_server_path()


@pytest.fixture
def daemon(server: Path) -> Iterator[RunningDaemon]:
    with leasing_daemon(CONFIG, server=server) as running:
        yield running


def computed(client: WireClient, route: str) -> int:
    """How many tokens of the prompt were not known yet; the runtime is let go of then."""
    ensured = ensure(client, route)
    timings: Json = complete(ensured["endpoint"], messages=PROMPT).body["timings"]
    ask(client, "lease.release", lease_ref=ensured["lease"]["lease_ref"])
    count: int = timings["prompt_n"]
    return count


def stop(client: WireClient, route: str) -> None:
    ensured = ensure(client, route)
    ask(client, "lease.release", lease_ref=ensured["lease"]["lease_ref"])
    key = ensured["lease"]["instance_key"]
    assert ask(client, "runtime.stop", instance_key=key)["state"] == "stopped"


def test_a_swap_costs_no_prompt(daemon: RunningDaemon) -> None:
    with connected(daemon.socket, 90) as client:
        whole = computed(client, "kept")
        assert whole > 100
        assert computed(client, "forgetful") == whole  # it takes the room of the other
        assert computed(client, "kept") == 1
        assert computed(client, "forgetful") == whole
        stop(client, "forgetful")
    place = daemon.directory / "run" / "state" / "kv"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place, *place.iterdir())} == {0o700}
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in place.glob("*/*")} == {0o600}


def test_a_restart_of_the_daemon_costs_no_prompt(daemon: RunningDaemon, server: Path) -> None:
    with connected(daemon.socket, 90) as client:
        whole = computed(client, "kept")
    assert daemon.stop() == 0
    assert "kv saved" in daemon.events()
    start_again(daemon, server)
    with connected(daemon.socket, 90) as client:
        assert computed(client, "kept") == 1
    # Configured no more, it is forgotten: it holds what was asked.
    assert daemon.stop() == 0
    path = daemon.directory / "config.toml"
    path.write_text(CONFIG.replace("keep_kv = true", ""))
    start_again(daemon, server)
    with connected(daemon.socket, 90) as client:
        assert computed(client, "kept") == whole
    assert list((daemon.directory / "run" / "state" / "kv").iterdir()) == []


def test_a_server_that_was_taken_over_is_kept_as_well(daemon: RunningDaemon) -> None:
    with connected(daemon.socket, 90) as client:
        computed(client, "kept")
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "upgraded" in daemon.events(), 20, "the upgrade")
    with connected(daemon.socket, 90) as client:
        stop(client, "kept")
        assert computed(client, "kept") == 1


def test_an_idle_stop_keeps_it(server: Path) -> None:
    config = CONFIG.replace("keep_kv = true", 'keep_kv = true\nidle_ttl = "0.1s"')
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket, 90) as client:
        computed(client, "kept")
        (runtime,) = (
            one for one in ask(client, "runtime.list")["runtimes"] if one["name"] == "kept"
        )
        wait_runtime(client, runtime["instance_key"], "stopped")
        assert computed(client, "kept") == 1
