"""Leases on services that someone else runs: a fake Ollama, a real llama-server by its API."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon, running_daemon, wait_until
from tests.support.fake_ollama import WORD, fake_ollama
from tests.support.lease_client import (
    MODEL,
    Json,
    Refused,
    ask,
    boot,
    complete,
    ensure,
    leases,
    runtimes,
    start_again,
    wait_runtime,
)
from tests.support.llama_server import llama_server_path
from tests.support.ports import kept_port
from tests.support.wire_client import WireClient, connected

KEY = "sk-of-the-service"
LOOKS_MS = 400
"""Between two looks, where they matter; one may take half of that, in three requests."""


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon(config="", environ={"SERVICE_KEY": KEY}) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[WireClient]:
    with connected(daemon.socket) as connected_client:
        yield connected_client


def ollama(root_url: str, **fields: object) -> Json:
    spec: Json = {"root_url": root_url, "kind": "ollama", "model_identity": "qwen3"}
    return {**spec, **fields}


def refusal(client: WireClient, target: str | Json, **fields: object) -> Refused:
    with pytest.raises(Refused) as caught:
        ensure(client, target, **fields)
    return caught.value


def key_of(ensured: Json) -> str:
    key: str = ensured["lease"]["instance_key"]
    return key


def test_a_lease_on_an_ollama(daemon: RunningDaemon, client: WireClient) -> None:
    with fake_ollama(installed={"qwen3:latest": ["completion", "tools"]}, key=KEY) as fake:
        target = ollama(f"{fake.root_url}/v1", api_key=KEY, health_interval_ms=LOOKS_MS)
        ensured = ensure(client, target)
        endpoint = ensured["endpoint"]
        assert endpoint["base_url"] == f"{fake.root_url}/v1"
        assert endpoint["management_mode"] == "externally_managed"
        assert endpoint["target_class"] == "self_hosted_endpoint"
        assert endpoint["model_identity"] == "qwen3"
        assert endpoint["headers"] == {"Authorization": f"Bearer {KEY}"}
        assert endpoint["capabilities"]["tool_calling"] is True
        assert endpoint["capabilities"]["vision"] is False
        assert "uds" not in endpoint or endpoint["uds"] is None
        assert ensured["lease"]["transport"] == "tcp"

        cold = wait_runtime(client, key_of(ensured), "degraded")
        assert (cold["pid"], cold["health"], cold["leases"]) == (None, "degraded", 1)
        assert "not loaded" in cold["last_error"]
        answer = complete({**endpoint, "uds": None}, model="qwen3")
        assert answer.body["choices"][0]["message"]["content"] == WORD
        warm = wait_runtime(client, key_of(ensured), "ready")  # seen, not told
        assert warm["last_error"] is None

        # Another owner with the same rights shares it; other rights are another runtime.
        same = {"authorization": f"Bearer {KEY}"}
        again = ensure(client, ollama(fake.root_url, headers=same, health_interval_ms=LOOKS_MS))
        assert key_of(again) == key_of(ensured)
        assert refusal(client, ollama(fake.root_url, api_key="guess")).code == "backend_unavailable"

        for one in (ensured, again):
            ask(client, "lease.release", lease_ref=one["lease"]["lease_ref"])
        wait_runtime(client, key_of(ensured), "stopped")

        def rests() -> bool:
            asked = len(fake.seen)
            time.sleep(2 * LOOKS_MS / 1000)
            return len(fake.seen) == asked

        # nobody holds it: nobody asks it, once what was asked before has come
        wait_until(rests, 2, "the end of the looks")
        assert fake.get("/api/version")[0] == 200  # detached, not stopped
    assert KEY not in daemon.log
    assert KEY not in str(runtimes(client))


def test_a_service_that_goes_and_comes_back_keeps_its_lease(client: WireClient) -> None:
    has: Json = {"installed": {"qwen3:latest": None}, "running": {"qwen3:latest": 9}}
    with kept_port() as port:
        with fake_ollama(port, **has) as fake:
            ensured = ensure(client, ollama(fake.root_url, health_interval_ms=LOOKS_MS))
        gone = wait_runtime(client, key_of(ensured), "unavailable")
        assert "does not answer" in gone["last_error"]
        assert leases(client) == [ensured["lease"]["lease_ref"]]
        time.sleep(3 * LOOKS_MS / 1000)  # some looks: nothing is killed, nothing is given up
        assert ask(client, "runtime.get", instance_key=key_of(ensured))["restarts"] == 0
        with fake_ollama(port, **has):
            wait_runtime(client, key_of(ensured), "ready")
            lines = [line for line in _log_lines(client, key_of(ensured)) if "answer" in line]
            assert lines


def _log_lines(client: WireClient, key: str) -> list[str]:
    client.say(id="l", op="logs", instance_key=key)
    lines = []
    while (answer := client.hear())["type"] != "done":
        lines.append(answer["value"]["line"])
    return lines


def test_what_cannot_be_attached_says_why_at_once(client: WireClient) -> None:
    begun = time.monotonic()
    with fake_ollama(installed={"other:latest": None}) as fake:
        patient = ollama(fake.root_url, ready_timeout_ms=600_000)  # who waited would wait so long
        unknown = refusal(client, patient)
        assert unknown.code == "invalid_request"
        assert "does not know 'qwen3'" in unknown.message
        assert unknown.details["cause"] == "service_lacks_model"
        fake.key = KEY
        unwelcome = refusal(client, patient)
        assert unwelcome.code == "backend_unavailable"
        assert "refuses the key" in unwelcome.message
    assert time.monotonic() - begun < 60
    # Nobody listens: that may change, so it waits as long as the spec allows.
    with kept_port() as port:
        absent = refusal(client, ollama(f"http://127.0.0.1:{port}", ready_timeout_ms=300))
    assert (absent.code, absent.details["cause"]) == ("backend_unavailable", "service_unavailable")
    assert leases(client) == []
    wait_until(lambda: all(one["state"] == "stopped" for one in runtimes(client)), 1, "their end")


def test_a_service_that_starts_within_the_ready_timeout_is_waited_for(client: WireClient) -> None:
    with kept_port() as port:
        target = ollama(f"http://127.0.0.1:{port}", ready_timeout_ms=60_000)
        client.say(id="c", op="lease.ensure", target=target)
        time.sleep(0.3)
        with fake_ollama(port, installed={"qwen3:latest": None}):
            assert client.hear()["type"] != "error"


def test_a_referenced_key_is_the_daemons(daemon: RunningDaemon, client: WireClient) -> None:
    with fake_ollama(installed={"qwen3:latest": None}, key=KEY) as fake:
        ensured = ensure(client, ollama(fake.root_url, api_key_env="SERVICE_KEY"), bind="none")
        assert ensured["endpoint"]["headers"] == {"Authorization": f"Bearer {KEY}"}
        journal = (daemon.directory / "run" / "state" / "journal").read_bytes()
        assert b"SERVICE_KEY" in journal
        assert KEY.encode() not in journal


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"root_url": "http://192.0.2.1:11434"}, "root_url"),
        ({"kind": "vllm"}, "kind"),
        ({"model_identity": None}, "model_identity"),
        ({"api_key": "a", "api_key_env": "B"}, "api_key_env"),
        ({"api_key_file": "relative"}, "api_key_file"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_spec_names_its_field(client: WireClient, fields: Json, named: str) -> None:
    found = refusal(client, ollama("http://127.0.0.1:1") | fields)
    assert found.code == "invalid_request"
    assert named in [mistake["field"] for mistake in found.details["mistakes"]]
    assert runtimes(client) == []


def test_what_a_consumer_needs_is_asked_of_the_service(client: WireClient) -> None:
    needs_tools = {"required_capabilities": {"tool_calling": True}}
    only_managed = {"accepted_management_modes": ["managed"]}
    with fake_ollama(installed={"qwen3:latest": ["completion", "tools"]}) as fake:
        assert ensure(client, ollama(fake.root_url), consumer=needs_tools)["lease"]
        found = refusal(client, ollama(fake.root_url), consumer=only_managed)
        assert found.details["compatibility"]["reason"] == "management_mode_mismatch"
        fake.installed["plain:latest"] = ["completion"]
        plain = ollama(fake.root_url, model_identity="plain")
        found = refusal(client, plain, consumer=needs_tools)
        assert found.details["compatibility"]["missing_requirements"] == ["tool_calling"]


def test_it_takes_no_room() -> None:
    config = "[limits]\nmax_runtimes = 1\nmemory_bytes = 1\n"
    with (
        fake_ollama(installed={"qwen3:latest": None}) as fake,
        running_daemon(config=config) as daemon,
        connected(daemon.socket) as client,
    ):
        first = ensure(client, ollama(fake.root_url))
        assert ensure(client, ollama(fake.root_url, headers={"X-Other": "1"}))["lease"]
        assert ask(client, "lease.ensure", target=ollama(fake.root_url), plan=True)["verdict"] == (
            "running"
        )
        assert refusal(client, boot()).code == "conflict"  # of memory
        assert first["lease"]["lease_ref"] in leases(client)


def test_its_leases_come_back_after_a_restart_even_before_the_service() -> None:
    with kept_port() as port, running_daemon(config="") as daemon:
        with fake_ollama(port, installed={"qwen3:latest": None}) as fake:
            with connected(daemon.socket) as client:
                target = ollama(fake.root_url, ready_timeout_ms=2000, health_interval_ms=LOOKS_MS)
                ensured = ensure(client, target, bind="none")
            assert daemon.stop() == 0
        start_again(daemon, "")
        with connected(daemon.socket) as client:
            assert leases(client) == [ensured["lease"]["lease_ref"]]
            wait_runtime(client, key_of(ensured), "restarting")
            with fake_ollama(port, installed={"qwen3:latest": None}):
                wait_runtime(client, key_of(ensured), "degraded")


def test_its_leases_outlive_an_upgrade(daemon: RunningDaemon) -> None:
    with fake_ollama(installed={"qwen3:latest": None}) as fake:
        with connected(daemon.socket) as client:
            target = ollama(fake.root_url, health_interval_ms=LOOKS_MS)
            ensured = ensure(client, target, bind="none")
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgraded" in daemon.events(), 20, "the upgrade")
        with connected(daemon.socket) as client:
            assert leases(client) == [ensured["lease"]["lease_ref"]]
            wait_runtime(client, key_of(ensured), "degraded")
            fake.running["qwen3:latest"] = 1
            wait_runtime(client, key_of(ensured), "ready")


# -- openai ------------------------------------------------------------------------------------


@contextmanager
def someone_elses_server(directory: Path) -> Iterator[str]:
    """A real llama-server that no daemon started, with a key; its root URL."""
    keys = directory / "keys"
    keys.write_text(KEY)
    command = [str(llama_server_path()), "-m", MODEL, "-c", "512", "-np", "1", "-t", "1"]
    command += ["--host", "127.0.0.1", "--alias", "theirs", "--api-key-file", str(keys)]
    with kept_port() as port:
        with (directory / "server.log").open("wb") as log:
            server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
            assert server.poll() is None  # whatever was done with its leases
        finally:
            server.kill()
            server.wait()


def test_a_lease_on_a_real_llama_server(client: WireClient, tmp_path: Path) -> None:
    with someone_elses_server(tmp_path) as root_url:
        target: Json = {"root_url": root_url, "kind": "openai", "api_key": KEY}
        target |= {"health_interval_ms": LOOKS_MS, "ready_timeout_ms": 60_000}
        ensured = ensure(client, target)  # while it loads: waited for
        endpoint = ensured["endpoint"]
        assert (endpoint["model_identity"], endpoint["base_url"]) == ("theirs", f"{root_url}/v1")
        assert endpoint["metadata"]["n_ctx"] == 512
        assert complete({**endpoint, "uds": None}).body["choices"][0]["message"]["content"]
        wait_runtime(client, key_of(ensured), "ready")
        wrong = refusal(client, {**target, "api_key": "sk-wrong"})
        assert "refuses the key" in wrong.message
        assert "sk-wrong" not in str(wrong)
        key = key_of(ensured)
        assert ask(client, "runtime.stop", instance_key=key, force=True)["state"] == "stopped"
        assert leases(client) == []
        assert ensure(client, target)["lease"]
        wait_until(lambda: runtimes(client), 1, "the runtime")


def test_a_route_of_a_service_is_leased_over_the_front_and_its_key_stays_here() -> None:
    with fake_ollama(installed={"qwen3:latest": ["completion"]}, key=KEY) as fake:
        config = (
            f'[backends.office]\nkind = "openai_compat"\nbase_url = "{fake.root_url}"\n'
            f'api_key = "{KEY}"\nmodel = "qwen3"\n[routes.office]\nbackends = ["office"]\n'
        )
        with running_daemon(config=config) as daemon, connected(daemon.socket) as client:
            why = refusal(client, "office").message
            assert "over the HTTP front, and this daemon has none" in why
        config += '[http]\nlisten = "127.0.0.1:0"\n'
        with running_daemon(config=config) as daemon, connected(daemon.socket) as client:
            ensured = ensure(client, "office")
            endpoint = ensured["endpoint"]
            assert "/leases/" in endpoint["base_url"]
            assert endpoint["management_mode"] == "externally_managed"
            assert (endpoint["model_identity"], endpoint["uds"]) == ("qwen3", None)
            assert KEY not in str(ensured)
            assert ensured["lease"]["transport"] == "tcp"
            answer = complete(endpoint, model="qwen3")
            assert answer.body["choices"][0]["message"]["content"] == WORD
            assert complete(endpoint, model="llama").status == 400
            assert complete({**endpoint, "headers": {}}).status == 401
            ask(client, "lease.release", lease_ref=ensured["lease"]["lease_ref"])
            assert complete(endpoint, model="qwen3").status == 404
