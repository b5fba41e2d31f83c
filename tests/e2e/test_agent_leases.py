"""CLI agents as leased endpoints of a real daemon; the CLI is a scripted one, where not said."""

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.agent_client import (
    LOCAL_ROUTE,
    agent_daemon,
    ask_agent,
    begin,
    read_until,
    request,
)
from tests.support.agent_clis import cli_path
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.fake_ollama import fake_ollama
from tests.support.lease_client import (
    Json,
    Refused,
    ask,
    complete,
    counted,
    ensure,
    leases,
    leasing_daemon,
    runtimes,
    start_again,
)
from tests.support.llama_server import llama_server_path
from tests.support.ports import kept_port
from tests.support.processes import is_alive
from tests.support.wire_client import Answer, WireClient, connected

OPUS = {"agent": "claude", "model": "opus"}
LOCAL = {"agent": "claude", "upstream": "local"}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with agent_daemon(tmp_path) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[WireClient]:
    with connected(daemon.socket) as one:
        yield one


def port_of(endpoint: Json) -> int:
    """Where the daemon listens for it, now and after a crash."""
    return urlsplit(endpoint["base_url"]).port or 0


def runs(daemon: RunningDaemon) -> Path:
    """Where the private directories of runs are."""
    return daemon.directory / "run" / "state" / "agents"


def is_gone(pid: int) -> bool:
    """Nothing runs by that number."""
    return not is_alive(pid)


def nothing_runs(daemon: RunningDaemon) -> bool:
    """No process but the daemon's own, and no directory of a run."""
    left = runs(daemon)
    return daemon.processes() == [daemon.pid] and not (left.exists() and os.listdir(left))


def test_a_lease_on_an_agent_from_its_spec_to_its_end(
    daemon: RunningDaemon, client: WireClient
) -> None:
    granted = ensure(client, OPUS, owner_ref="me", context={"boundary_ref": "b"})
    lease, endpoint = granted["lease"], granted["endpoint"]
    root = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/leases/(.+)/v1", endpoint["base_url"])
    assert root is not None
    assert root[2] == lease["lease_ref"] == endpoint["lease_ref"]
    assert endpoint["health_ref"] == f"{root[1]}/leases/{root[2]}/health"
    assert (endpoint["runtime_kind"], endpoint["target_class"]) == ("task", "cli_endpoint")
    assert (endpoint["provider_identity"], endpoint["model_identity"]) == ("claude", "opus")
    assert endpoint["protocol"] == "openai_chat_completions"
    assert endpoint["management_mode"] == "managed"
    assert (endpoint["uds"], endpoint["boundary_ref"]) == (None, "b")
    assert endpoint["capabilities"]["streaming"] is True
    assert endpoint["capabilities"]["tool_calling"] is False
    assert endpoint["metadata"]["cli_agent_v2"] is True
    manifest = endpoint["metadata"]["backend_manifest"]
    assert (manifest["backend"], manifest["startup_kind"]) == ("claude", "spawned")
    assert manifest["supported_surfaces"] == ["local_subprocess"]
    (runtime,) = runtimes(client)
    assert (runtime["engine"], runtime["state"], runtime["pid"]) == ("claude", "ready", None)
    assert runtime["endpoint"] is None
    wait_until(lambda: nothing_runs(daemon), 1, "the end of what asked the program who it is")

    assert ask_agent(endpoint, "say to be or not to be").text == "to be or not to be "
    reply = ask_agent(endpoint, model=None)
    assert reply.json["usage"] == {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    assert reply.json["model"] == "opus"
    assert reply.json["choices"][0]["finish_reason"] == "stop"
    listed = request("GET", f"{endpoint['base_url']}/models", endpoint["headers"]).json
    assert [(model["id"], model["owned_by"]) for model in listed["data"]] == [("opus", "claude")]
    assert request("GET", endpoint["health_ref"]).json == {"status": "ok"}

    token = endpoint["headers"]["Authorization"].removeprefix("Bearer ")
    assert len(token) * 6 >= 144
    assert token not in daemon.log
    assert "to be or not" not in daemon.log
    assert token.encode() not in (daemon.directory / "run" / "state" / "journal").read_bytes()

    for _ in range(2):
        ask(client, "lease.release", lease_ref=lease["lease_ref"])
    assert ask_agent(endpoint).status == 404
    assert request("GET", endpoint["health_ref"]).error == "not_found"
    wait_until(lambda: runtimes(client)[0]["state"] == "stopped", 2, "the end of the runtime")
    wait_until(lambda: nothing_runs(daemon), 1, "the end of all runs")


def test_who_names_no_model_gets_what_the_cli_takes(client: WireClient) -> None:
    endpoint = ensure(client, {"agent": "claude"})["endpoint"]
    assert endpoint["model_identity"] == "default"
    assert "--model" not in json.loads(ask_agent(endpoint, "surroundings").text)["argv"]
    assert ask_agent(endpoint, model="opus").status == 400
    named = ensure(client, OPUS)["endpoint"]
    argv = json.loads(ask_agent(named, "surroundings").text)["argv"]
    assert argv[argv.index("--model") + 1] == "opus"


def test_the_wrong_caller_gets_an_error_and_nothing_is_started(
    daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    other = ensure(client, {"agent": "claude", "model": "haiku"})["endpoint"]
    wrong = {**endpoint, "headers": {"Authorization": "Bearer wrong"}}
    assert (ask_agent(wrong).status, ask_agent(wrong).error) == (401, "invalid_api_key")
    assert ask_agent({**endpoint, "headers": other["headers"]}).status == 401
    assert ask_agent({**endpoint, "headers": {}}).status == 401
    unknown = endpoint["base_url"].replace("/leases/lease-", "/leases/lease-x")
    assert ask_agent({**endpoint, "base_url": unknown}).status == 404
    assert ask_agent(endpoint, model="haiku").status == 400
    assert "opus" in ask_agent(endpoint, model="haiku").json["error"]["message"]
    responses = f"{endpoint['base_url']}/responses"
    assert request("POST", responses, endpoint["headers"], b"{}").status == 404
    assert not runs(daemon).exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tool_choice": "required"},
        {"messages": [{"role": "user", "content": "hi"}] * 129},
        {"messages": [{"role": "user", "content": "x" * (256 * 1024 + 1)}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": []},
        {"messages": None},
        {"stop": ["x"]},
        {"n": 2},
    ],
)
def test_what_an_agent_is_not_asked(
    fields: Json, daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    for stream in (False, True):
        reply = ask_agent(endpoint, stream=stream, **fields)
        assert (reply.status, reply.error) == (400, "invalid_request")
    assert not runs(daemon).exists()


def test_the_largest_request_is_answered(client: WireClient) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    longest = "say " + "x" * (256 * 1024 - 4)
    assert len(ask_agent(endpoint, longest).text.strip()) == 256 * 1024 - 4
    many = [{"role": role, "content": "hi"} for role in ("user", "assistant")] * 64
    assert "### assistant" in ask_agent(endpoint, messages=many).text


def test_who_needs_tools_is_refused_before_anything_is_looked_at(
    daemon: RunningDaemon, client: WireClient
) -> None:
    for consumer in (
        {"required_capabilities": {"tool_calling": True}},
        {"constraints": {"target_class": "cloud_provider"}},
        {"accepted_runtime_kinds": ["service"]},
    ):
        with pytest.raises(Refused) as refused:
            ensure(client, OPUS, consumer=consumer)
        assert refused.value.code == "incompatible"
        assert refused.value.details["compatibility"]["compatible"] is False
    wanted: tuple[Json, ...] = (
        {"tools": [1]},
        {"tool_choice": "required"},
        {"tool_choice": {}},
    )
    for tools in wanted:
        with pytest.raises(Refused, match=f"`{next(iter(tools))}`") as refused:
            ensure(client, OPUS, **tools)
        assert refused.value.code == "invalid_request"
    assert leases(client) == []
    none = {"tools": [], "tool_choice": "none"}
    ensure(client, {**OPUS, **none}, **none)
    optional = {"optional_capabilities": {"tool_calling": True, "streaming": True}}
    fits = ensure(client, OPUS, consumer=optional)["compatibility"]
    assert fits["warnings"] == ["tool_calling"]
    assert daemon.events().count("service attached") == 1


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ({"agent": "clod", "model": "m"}, "`agent`"),
        ({"agent": "amp", "model": "gpt"}, "`model`"),
        ({"agent": "claude", "upstream": "nowhere"}, "`upstream`"),
        ({"agent": "gemini", "upstream": "local"}, "`upstream`"),
        ({"agent": "claude", "upstream": "agents"}, "`upstream`"),
        ({"agent": "claude", "upstream": "local", "model": "other"}, "`model`"),
        ({"agent": "claude", "model": "m", "tools": [{}]}, "`tools`"),
        ({"agent": "claude", "model": "m", "binary": "/bin/sh"}, "`binary`"),
    ],
)
def test_mistakes_in_a_spec_are_told_by_their_field(
    target: Json, field: str, tmp_path: Path
) -> None:
    config = LOCAL_ROUTE + (
        '[backends.a]\nkind = "agent"\nagent = "claude"\nmodel = "m"\n'
        '[routes.agents]\nbackends = ["a"]\n'
    )
    with agent_daemon(tmp_path, config) as daemon, connected(daemon.socket) as client:
        with pytest.raises(Refused) as refused:
            ensure(client, target)
        assert refused.value.code == "invalid_request"
        assert field in refused.value.message


@pytest.mark.parametrize(
    ("prompt", "status", "said"),
    [
        ("garbage", 502, "no event"),
        ("half", 502, "in the middle of a line"),
        ("failed 401", 503, "logged out"),
        ("failed 404", 404, "has no model"),
        ("failed 429", 429, "try later"),
        ("failed 500", 502, "500"),
    ],
)
def test_what_a_cli_does_wrong_is_one_error(
    prompt: str, status: int, said: str, daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    reply = ask_agent(endpoint, prompt)
    assert reply.status == status
    assert said in reply.json["error"]["message"]
    repeated = reply.headers.get("x-should-retry"), reply.headers.get("retry-after")
    assert repeated == ((None, "1") if status == 429 else ("false", None))
    streamed = ask_agent(endpoint, prompt, stream=True)
    error = streamed.json if streamed.status != 200 else streamed.events[-1]
    assert said in error["error"]["message"]
    wait_until(lambda: nothing_runs(daemon), 1, "the end of all runs")
    assert ask_agent(endpoint).text == "hello "


def test_a_run_has_a_deadline(tmp_path: Path) -> None:
    limits = "deadline_s = 0.6\n"
    with agent_daemon(tmp_path, agents=limits) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, OPUS)["endpoint"]
        late = ask_agent(endpoint, "never")
        assert (late.status, late.headers["x-should-retry"]) == (504, "false")
        streamed = ask_agent(endpoint, "drip", stream=True)
        assert streamed.events[-1]["error"]["code"] == "timeout"
        wait_until(lambda: nothing_runs(daemon), 1, "the end of all runs")


def test_a_run_has_an_output_limit(tmp_path: Path) -> None:
    limits = "max_output_bytes = 65536\n"
    with agent_daemon(tmp_path, agents=limits) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, OPUS)["endpoint"]
        assert ask_agent(endpoint, f"long {60 * 1024}").status == 200
        reply = ask_agent(endpoint, f"long {70 * 1024}")
        assert (reply.status, reply.headers["x-should-retry"]) == (400, "false")
        assert "65536 bytes" in reply.json["error"]["message"]
        assert "`max_output_bytes`" in reply.json["error"]["message"]
        wait_until(lambda: nothing_runs(daemon), 1, "the end of all runs")


def test_a_daemon_that_a_cli_leaves_is_ended_with_its_run(
    daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    assert ask_agent(endpoint, "fork").text == "forked"
    wait_until(lambda: nothing_runs(daemon), 1, "the end of all that it started")


def test_what_left_its_session_and_its_environment_is_ended_with_its_run(
    daemon: RunningDaemon, client: WireClient, tmp_path: Path
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    for kept in ("answered", "dropped"):
        note = tmp_path / kept
        if kept == "answered":
            assert ask_agent(endpoint, f"escape {note}").text == "escaped"
        else:
            with begin(endpoint, f"linger {note}") as connection:
                read_until(connection, b"escaped")
        pid = int(note.read_text())
        wait_until(partial(is_gone, pid), 1, "the end of what escaped")
        wait_until(lambda: nothing_runs(daemon), 1, "the end of the run")


def test_a_cli_that_is_missing_or_logged_out_is_told_at_once(tmp_path: Path) -> None:
    missing = '[agents.codex]\nbinary = "/nowhere/codex"\n'
    with (
        agent_daemon(tmp_path, missing, logged_in=False) as daemon,
        connected(daemon.socket) as client,
    ):
        for target, said in ((OPUS, "logged out"), ({"agent": "codex", "model": "m"}, "/nowhere")):
            with pytest.raises(Refused, match=said) as refused:
                ensure(client, target)
            assert refused.value.code == "backend_unavailable"
        listed = {agent["provider"]: agent for agent in ask(client, "agent.list")["agents"]}
        claude, codex = listed["claude"], listed["codex"]
        assert (claude["found"], claude["logged_in"]) == (True, False)
        assert (claude["version"], claude["upstream_protocol"]) == ("2.1.197", "messages")
        assert (codex["found"], codex["version"]) == (False, None)
        assert leases(client) == []


def test_a_stream_comes_as_it_is_written_and_ends_with_the_lease(
    daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    whole = ask_agent(
        endpoint, "say one two", stream=True, stream_options={"include_usage": True}
    ).events
    assert whole[-1] == "[DONE]"
    assert whole[-2]["usage"]["completion_tokens"] == 5
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in whole[:-2]]
    assert "".join(filter(None, deltas)) == "one two "

    with begin(endpoint, "drip") as connection:
        read_until(connection, b"drip")
        assert not nothing_runs(daemon)
        ask(client, "lease.release", lease_ref=endpoint["lease_ref"])
        rest = read_until(connection, b"not_found")
        assert b'data: {"error"' in rest
    wait_until(lambda: nothing_runs(daemon), 1, "the end of the run")


def test_a_client_that_leaves_takes_its_run_with_it(
    daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    for prompt in ("drip", "never"):
        with begin(endpoint, prompt) as connection:
            read_until(connection, b"data: ")
            assert not nothing_runs(daemon)
        wait_until(lambda: nothing_runs(daemon), 1, "the end of the run")


def test_fifty_clients_that_leave_at_random_leave_nothing(tmp_path: Path) -> None:
    limits = "max_runs = 8\nmax_waiting = 50\n"
    with agent_daemon(tmp_path, agents=limits) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, OPUS)["endpoint"]
        chance = random.Random(50)

        def one(delay_s: float, prompt: str) -> None:
            with begin(endpoint, prompt):
                time.sleep(delay_s)

        threads = [
            threading.Thread(
                target=one,
                args=(chance.random(), chance.choice(["drip", "never", "fork", "say x"])),
            )
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: nothing_runs(daemon), 1, "the end of all runs")
        assert ask_agent(endpoint).text == "hello "


def test_more_than_may_run_wait_and_more_than_may_wait_are_refused(tmp_path: Path) -> None:
    limits = "max_runs = 1\nmax_waiting = 1\n"
    with agent_daemon(tmp_path, agents=limits) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, OPUS)["endpoint"]
        other = ensure(client, {"agent": "claude", "model": "haiku"})["endpoint"]

        def number(name: str) -> int:
            return counted(client, name)["claude",]

        with begin(endpoint, "drip") as first:
            read_until(first, b"drip")
            with begin(other, "say waited") as second:
                wait_until(lambda: number("inferd_agent_queued") == 1, 2, "the second in the line")
                reply = ask_agent(endpoint)
                assert ask_agent(other).status == 429  # whichever lease: the bound is the program's
                assert (reply.status, reply.error) == (429, "queue_full")
                assert int(reply.headers["retry-after"]) >= 1
                (claude,) = [
                    agent
                    for agent in ask(client, "agent.list")["agents"]
                    if agent["provider"] == "claude"
                ]
                assert (claude["running"], claude["max_runs"]) == (1, 1)
                assert number("inferd_agent_runs") == 1
                first.close()
                read_until(second, b"waited")
        wait_until(lambda: nothing_runs(daemon), 1, "the end of all runs")
        assert ask_agent(other).status == 200
        wait_until(lambda: nothing_runs(daemon), 1, "the end of that run, too")
        wait_until(lambda: number("inferd_agent_runs") == 0, 1, "the last turn's end")
        ended = counted(client, "inferd_agent_requests")
        assert ended["claude", "cancelled"] >= 1
        assert ended["claude", "ok"] >= 1
        assert ended["claude", "queue_full"] >= 2


def test_two_owners_share_a_runtime_and_each_has_a_route_of_its_own(
    daemon: RunningDaemon, client: WireClient
) -> None:
    first = ensure(client, OPUS)
    with connected(daemon.socket) as other:
        second = ensure(other, OPUS)
        assert first["lease"]["instance_key"] == second["lease"]["instance_key"]
        assert first["endpoint"]["headers"] != second["endpoint"]["headers"]
        assert runtimes(client)[0]["leases"] == 2
        ask(client, "lease.release", lease_ref=first["lease"]["lease_ref"])
        assert ask_agent(first["endpoint"]).status == 404
        assert ask_agent(second["endpoint"]).text == "hello "
    wait_until(lambda: ask_agent(second["endpoint"]).status == 404, 2, "its end with the peer")


def test_a_run_sees_an_empty_directory_and_only_what_its_profile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_OPERATOR", "x")
    monkeypatch.setenv("NAMED_BY_THE_OPERATOR", "y")
    named = 'environment = ["NAMED_BY_THE_OPERATOR"]'
    with agent_daemon(tmp_path, agents=named) as daemon, connected(daemon.socket) as client:
        seen = json.loads(ask_agent(ensure(client, OPUS)["endpoint"], "surroundings").text)
        assert seen["files"] == []
        assert seen["cwd"].startswith(str(runs(daemon)))
        assert "SECRET_OF_THE_OPERATOR" not in seen["environment"]
        assert "NAMED_BY_THE_OPERATOR" in seen["environment"]
        assert "surroundings" not in seen["argv"]
        wait_until(lambda: nothing_runs(daemon), 1, "the end of the run")


def test_an_agent_on_a_local_route_holds_its_model_and_alone_has_the_key(tmp_path: Path) -> None:
    server = llama_server_path()
    with (
        agent_daemon(tmp_path, LOCAL_ROUTE, logged_in=False, server=server) as daemon,
        connected(daemon.socket) as client,
    ):
        granted = ensure(client, LOCAL, owner_ref="me")
        endpoint = granted["endpoint"]
        assert endpoint["model_identity"] == "demo"
        listed = {lease["owner_ref"]: lease for lease in ask(client, "lease.list")["leases"]}
        child = listed[granted["lease"]["lease_ref"]]
        assert child["instance_key"].startswith("inferd-demo-")
        with pytest.raises(Refused, match="lease holds it"):
            ask(client, "runtime.stop", instance_key=child["instance_key"])
        with pytest.raises(Refused, match="ends with it"):
            ask(client, "lease.release", lease_ref=child["lease_ref"])

        seen = json.loads(ask_agent(endpoint, "upstream /v1/messages").text)
        assert seen["status"] == 200
        assert "demo model" in seen["body"]
        bearer = {"Authorization": f"Bearer {seen['key']}"}
        own = f"{seen['url']}/v1/models"
        wait_until(lambda: request("GET", own, bearer).status == 404, 1, "the end of the key")
        with begin(endpoint, "drip") as running:
            read_until(running, b"drip")
            assert request("GET", f"{endpoint['base_url']}/models", bearer).status == 401
        wrong = json.loads(ask_agent(endpoint, "upstream /v1/chat/nothing").text)
        assert wrong["status"] == 404
        refused = ask_agent(endpoint, "canned /v1/messages")
        assert refused.status == 400
        assert "exceeds the available context size" in refused.json["error"]["message"]

        ask(client, "lease.release", lease_ref=granted["lease"]["lease_ref"])
        assert leases(client) == []

        def stops() -> bool:
            try:
                ask(client, "runtime.stop", instance_key=child["instance_key"])
            except Refused as refused:
                if "it works on requests" not in refused.message:
                    raise
                return False  # the last run is being cleared up
            return True

        wait_until(stops, 1, "a model that nobody holds")


@pytest.mark.parametrize("task", ["embeddings = true", "reranking = true", 'pooling = "rank"'])
@pytest.mark.parametrize("engine", ["llama_server", "libllama"])
def test_no_agent_runs_on_a_route_that_generates_nothing(
    engine: str, task: str, tmp_path: Path
) -> None:
    local = LOCAL_ROUTE.replace("llama_server", engine)
    config = local.replace('model = "demo"', f'model = "demo"\n{task}')
    with agent_daemon(tmp_path, config) as daemon, connected(daemon.socket) as client:
        with pytest.raises(Refused, match="`upstream` must be a route whose model generates"):
            ensure(client, LOCAL)
        assert leases(client) == []
        assert all(one["engine"] == "libllama" for one in runtimes(client) if one["pid"])


def test_no_agent_runs_on_a_service_that_does_not_speak_its_protocol(tmp_path: Path) -> None:
    with fake_ollama(installed={"qwen3:latest": None}) as service:
        config = (
            f'[backends.far]\nkind = "openai_compat"\nbase_url = "{service.root_url}"\n'
            'model = "qwen3:latest"\n[routes.local]\nbackends = ["far"]\n'
        )
        with agent_daemon(tmp_path, config) as daemon, connected(daemon.socket) as client:
            with pytest.raises(Refused, match="far does not serve /v1/messages") as refused:
                ensure(client, LOCAL)
            assert refused.value.code == "incompatible"
            assert leases(client) == []
    assert "/v1/messages" in service.paths()


def test_leases_and_their_routes_survive_a_crash(tmp_path: Path) -> None:
    server = llama_server_path()
    with agent_daemon(tmp_path, LOCAL_ROUTE, server=server) as daemon:
        with connected(daemon.socket) as client:
            agent = ensure(client, LOCAL, bind="none")["endpoint"]
            plain = ensure(client, "local", bind="none", transport="tcp")["endpoint"]
            direct = ensure(client, "local", bind="none")["endpoint"]
            assert plain["source_runtime_ref"] == direct["source_runtime_ref"]
            assert complete(plain, model="demo").status == 200
            held = set(leases(client))
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.process.wait(15)
        with kept_port(port_of(plain)):
            start_again(daemon, server)
        with connected(daemon.socket) as client:
            assert set(leases(client)) == held
            assert json.loads(ask_agent(agent, "upstream /v1/messages").text)["status"] == 200
            assert complete(plain).status == 200
            assert complete(direct).status == 200
            wrong = {**plain, "headers": {"Authorization": "Bearer x"}}
            assert complete(wrong).status == 401
            for endpoint in (agent, plain, direct):
                ask(client, "lease.release", lease_ref=endpoint["lease_ref"])
            assert leases(client) == []
            assert complete(plain).status == 404


def test_a_crash_of_the_daemon_in_mid_run_leaves_nothing_of_it(
    daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS, bind="none")["endpoint"]
    with begin(endpoint, "drip") as one, begin(endpoint, "never") as two:
        for connection in (one, two):
            read_until(connection, b"data: ")
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.process.wait(15)
    wait_until(lambda: not daemon.processes(), 1, "the end of all runs")
    assert os.listdir(runs(daemon))
    with kept_port(port_of(endpoint)):
        start_again(daemon, "")
    with connected(daemon.socket) as another:
        assert leases(another) == [endpoint["lease_ref"]]
    assert os.listdir(runs(daemon)) == []
    assert ask_agent(endpoint).text == "hello "


def test_a_program_that_vanishes_is_told_by_the_route_and_comes_back(
    tmp_path: Path, daemon: RunningDaemon, client: WireClient
) -> None:
    endpoint = ensure(client, OPUS)["endpoint"]
    program = tmp_path / "scripted-claude"
    program.rename(tmp_path / "elsewhere")
    assert ask_agent(endpoint).status == 502
    (tmp_path / "elsewhere").rename(program)
    assert ask_agent(endpoint).text == "hello "


def test_leases_and_their_routes_survive_an_upgrade(tmp_path: Path) -> None:
    server = llama_server_path()
    with agent_daemon(tmp_path, LOCAL_ROUTE, server=server) as daemon:
        with connected(daemon.socket) as client:
            agent = ensure(client, LOCAL, bind="none")["endpoint"]
            plain = ensure(client, "local", bind="none", transport="tcp")["endpoint"]
        os.kill(daemon.pid, signal.SIGUSR2)
        daemon.wait_for("upgraded", 15)
        assert complete(plain).status == 200
        assert json.loads(ask_agent(agent, "upstream /v1/messages").text)["status"] == 200


def test_an_agent_on_the_bundled_engine(tmp_path: Path) -> None:
    config = LOCAL_ROUTE.replace("llama_server", "libllama")
    with agent_daemon(tmp_path, config) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, LOCAL)["endpoint"]
        seen = json.loads(ask_agent(endpoint, "upstream /v1/messages").text)
        assert seen["status"] == 200, seen
        told = ask(client, "lease.ensure", target=LOCAL, plan=True)
        assert told["verdict"] == "running"


def test_a_route_that_an_agent_answers(tmp_path: Path) -> None:
    config = (
        '[backends.coder]\nkind = "agent"\nagent = "claude"\nmodel = "opus"\n'
        '[routes.coder]\nbackends = ["coder"]\n[http]\nlisten = "127.0.0.1:0"\n'
    )
    with agent_daemon(tmp_path, config) as daemon, connected(daemon.socket) as client:
        (front,) = ask(client, "status")["http"]
        own = {"base_url": f"{front}/v1", "headers": {}, "model_identity": "coder"}
        assert ask_agent(own, "say by http").text == "by http "
        assert ask_agent(own, tools=[TOOL]).status == 400
        message = {"role": "user", "content": [{"type": "text", "text": "say by frames"}]}
        client.say(id="g", op="generate", model="coder", messages=[message])
        answers: list[Answer] = []
        while not answers or answers[-1]["type"] not in ("done", "error"):
            answers.append(client.hear())
        assert answers[-1]["stop_reason"] == "end_turn"
        said = [one["block"]["delta"] for one in answers[:-1] if one["type"] == "frame"]
        assert "".join(said) == "by frames "
        tool = {"name": "f", "description": "", "input_schema": {"type": "object"}}
        client.say(id="t", op="generate", model="coder", messages=[message], tools=[tool])
        assert client.hear()["code"] == "invalid_request"
        wait_until(lambda: nothing_runs(daemon), 1, "the end of the runs that were answered")
        for text, count in (("hi", 129), ("x" * (256 * 1024 + 1), 1)):
            many = [{"role": "user", "content": text}] * count
            assert ask_agent(own, messages=many).status == 400
            typed = [{"role": "user", "content": [{"type": "text", "text": text}]}] * count
            client.say(id="l", op="generate", model="coder", messages=typed)
            refused = client.hear()
            assert (refused["type"], refused["code"]) == ("error", "invalid_request")
            assert "`messages`" in refused["message"]
        endpoint = ensure(client, "coder")["endpoint"]
        assert (endpoint["provider_identity"], endpoint["model_identity"]) == ("claude", "opus")
        assert ask_agent(endpoint).text == "hello "


@pytest.mark.parametrize("provider", ["claude", "codex"])
def test_a_real_cli_answers_by_a_local_model(provider: str) -> None:
    cli = cli_path(provider)
    server = llama_server_path()
    config = f'{LOCAL_ROUTE}[agents.{provider}]\nbinary = "{cli}"\n'
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, {"agent": provider, "upstream": "local"})["endpoint"]
        whole = ask_agent(endpoint, "Hello?", timeout_s=60)
        assert whole.status == 200, whole.body
        assert "model" in whole.text
        events = ask_agent(endpoint, "Hello?", stream=True, timeout_s=60).events
        assert events[-1] == "[DONE]"
        said = [event["choices"][0]["delta"].get("content") for event in events[:-1]]
        assert "model" in "".join(filter(None, said))
        with begin(endpoint, "Hello?") as connection:
            read_until(connection, b"data: ")
        pids = {runtime["pid"] for runtime in runtimes(client)} - {None}
        wait_until(lambda: set(daemon.processes()) == {daemon.pid, *pids}, 1, "the end of the run")


@pytest.mark.parametrize("provider", ["claude", "codex"])
def test_what_a_local_model_refuses_is_told_in_its_own_words(provider: str) -> None:
    cli = cli_path(provider)
    server = llama_server_path()
    config = f'{LOCAL_ROUTE}[agents.{provider}]\nbinary = "{cli}"\n'
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, {"agent": provider, "upstream": "local"})["endpoint"]
        refused = ask_agent(endpoint, "word " * 40_000, timeout_s=60)
        assert refused.status == 400, refused.body
        assert "exceeds the available context size" in refused.json["error"]["message"]
