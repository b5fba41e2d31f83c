"""Clients that do not read an agent's answer, or will not take no: nobody else is held up by them.

The CLI is a scripted one.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from inferd_daemon.supervision.leases.relay import RETURN_PATIENCE_S
from tests.support.agent_client import (
    HTTP,
    LOCAL_ROUTE,
    agent_daemon,
    ask_agent,
    begin,
    read_until,
)
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import Json, ask, counted, ensure, runtimes
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import WireClient, connected

OPUS = {"agent": "claude", "model": "opus"}
ROUTE = (
    '[backends.coder]\nkind = "agent"\nagent = "claude"\nmodel = "opus"\n'
    '[routes.coder]\nbackends = ["coder"]\n' + HTTP
)
DEADLINE_S = 4.0
LATE_S = DEADLINE_S / 2
"""What begins so late may not say enough in the rest of its time: another one is asked for."""
SLOW_S = 20.0
"""What a machine that is much slower needs for what takes a moment here."""
LIMITS = (
    f"deadline_s = {DEADLINE_S}\nmax_runs = 2\nmax_waiting = 1\nmax_output_bytes = 1000000000\n"
)
FLOOD = {"role": "user", "content": [{"type": "text", "text": "flood"}]}


def nothing_runs(daemon: RunningDaemon) -> bool:
    """No process but the daemon's own, and no directory of a run."""
    left = daemon.directory / "run" / "state" / "agents"
    return daemon.processes() == [daemon.pid] and not any(left.iterdir())


@contextmanager
def unread(endpoint: Json, number: int) -> Iterator[list[socket.socket]]:
    """So many streams that have begun, and are not read."""
    with ExitStack() as stack:
        streams: list[socket.socket] = []

        def floods() -> bool:
            asked = time.monotonic()
            new = [stack.enter_context(begin(endpoint, "flood")) for _ in range(number)]
            begun = [b" 200 " in stream.recv(1024) for stream in new]
            if all(begun) and time.monotonic() - asked < LATE_S:
                streams.extend(new)
                return True
            for stream in new:
                stream.close()
            return False

        wait_until(floods, SLOW_S, "streams that have begun")
        yield streams


def answers(endpoint: Json) -> None:
    """There is room for a run. One that began too late for its deadline had room as well."""

    def answered() -> bool:
        reply = ask_agent(endpoint)
        if reply.status == 504:
            return False
        assert reply.text == "hello "
        return True

    wait_until(answered, SLOW_S, "an answer")


def flooded(daemon: RunningDaemon, stack: ExitStack) -> WireClient:
    """A client of frames whose flood has begun, and which reads no more of it."""
    clients: list[WireClient] = []

    def floods() -> bool:
        clients.append(stack.enter_context(connected(daemon.socket)))
        asked = time.monotonic()
        clients[-1].say(id="1", op="generate", model="coder", messages=[FLOOD])
        if clients[-1].hear()["type"] == "frame" and time.monotonic() - asked < LATE_S:
            return True
        clients[-1].sock.close()
        return False

    wait_until(floods, SLOW_S, "a stream that has begun")
    return clients[-1]


def own_route(client: WireClient) -> Json:
    """The route's endpoint as the HTTP front has it."""
    (front,) = ask(client, "status")["http"]
    return {
        "base_url": f"{front}/v1",
        "headers": {"Authorization": "Bearer x"},
        "model_identity": "coder",
    }


def end_of(stream: socket.socket) -> str:
    """The last event; what comes before it is read to the end, and a good part of it was said."""
    got = read_until(stream, b'data: {"error"')
    while b"\n\n" not in got.rpartition(b'data: {"error"')[2]:
        got += stream.recv(65536)
    assert len(got) > 100 * 1024
    error = got.rpartition(b"data: ")[2].partition(b"\n\n")[0]
    message: str = json.loads(error)["error"]["message"]
    return message


@pytest.mark.parametrize("way", ["lease", "route"])
def test_who_does_not_read_holds_no_run_beyond_its_deadline(way: str, tmp_path: Path) -> None:
    with (
        agent_daemon(tmp_path, ROUTE, agents=LIMITS) as daemon,
        connected(daemon.socket) as client,
    ):
        endpoint = ensure(client, OPUS)["endpoint"] if way == "lease" else own_route(client)
        with unread(endpoint, 2) as streams:
            wait_until(lambda: nothing_runs(daemon), SLOW_S, "the end of the runs")
            # both places are free again, though both clients are still there
            for _ in range(3):
                answers(endpoint)
            with unread(endpoint, 2):
                wait_until(lambda: nothing_runs(daemon), SLOW_S, "the end of further runs")
            for stream in streams:
                assert "(deadline_s): the client read too slowly" in end_of(stream)
        answers(endpoint)


def test_who_does_not_read_frames_holds_no_run_beyond_its_deadline(tmp_path: Path) -> None:
    with agent_daemon(tmp_path, ROUTE, agents=LIMITS) as daemon, ExitStack() as stack:
        slow = [flooded(daemon, stack) for _ in range(2)]
        wait_until(lambda: nothing_runs(daemon), SLOW_S, "the end of the runs")
        with connected(daemon.socket) as other:

            def answered() -> bool:
                other.generate(op="generate", model="coder")
                end = other.hear_end()
                assert end["type"] == "done" or end["code"] == "timeout"
                return bool(end["type"] == "done")

            def active() -> int:
                (route,) = (one for one in ask(other, "route.list")["routes"] if one["ready"])
                return int(route["active"])

            for _ in range(3):
                wait_until(answered, SLOW_S, "an answer")
            wait_until(lambda: active() == 2, 1, "none but who is still being written to")
        for client in slow:
            error = client.hear_end()
            assert (error["code"], "read too slowly" in error["message"]) == ("timeout", True)


def test_a_reader_who_leaves_with_much_of_the_answer_unread_ends_the_run(tmp_path: Path) -> None:
    limits = LIMITS.replace(f"deadline_s = {DEADLINE_S}", "deadline_s = 600")
    with (
        agent_daemon(tmp_path, ROUTE, agents=limits) as daemon,
        connected(daemon.socket) as client,
    ):
        endpoint = ensure(client, OPUS)["endpoint"]
        for one in (endpoint, own_route(client)):
            with unread(one, 2):
                time.sleep(0.3)  # the run stands still by now, as a rule
            wait_until(lambda: nothing_runs(daemon), SLOW_S, "the end of the runs")
        with connected(daemon.socket) as leaver:
            leaver.say(id="1", op="generate", model="coder", messages=[FLOOD])
            assert leaver.hear()["type"] == "frame"
        wait_until(lambda: nothing_runs(daemon), SLOW_S, "the end of the run")
        assert ask_agent(endpoint).text == "hello "


def test_a_slow_reader_gets_all_of_an_answer_that_was_made_in_time(tmp_path: Path) -> None:
    limits = "max_runs = 1\nmax_waiting = 0\n"
    kilobytes = 600
    with agent_daemon(tmp_path, agents=limits) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, OPUS)["endpoint"]
        with begin(endpoint, f"long {kilobytes * 1024}") as stream:
            stream.recv(1024)
            wait_until(lambda: nothing_runs(daemon), SLOW_S, "the end of the run")
            # what it has left is gone a moment before its place is free, and nobody may wait
            wait_until(
                lambda: not any(counted(client, "inferd_agent_runs").values()), 1, "a free place"
            )
            assert ask_agent(endpoint).text == "hello "
            rest = read_until(stream, b"[DONE]")
        assert rest.count(b"x" * 1024) >= kilobytes - 2


@pytest.mark.parametrize("prompt", ["failed 500", "half", "garbage", "never", "long 70000"])
def test_no_sdk_repeats_a_run_that_failed(prompt: str, tmp_path: Path) -> None:
    limits = "deadline_s = 0.5\nmax_output_bytes = 65536\n"
    with (
        agent_daemon(tmp_path, ROUTE, agents=limits) as daemon,
        connected(daemon.socket) as client,
    ):
        leased = ensure(client, OPUS)["endpoint"]
        asked: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        for number, endpoint in enumerate((leased, own_route(client)), 1):
            key = endpoint["headers"]["Authorization"].removeprefix("Bearer ")
            with openai.OpenAI(base_url=endpoint["base_url"], api_key=key) as sdk:
                assert sdk.max_retries == 2
                with pytest.raises(openai.APIStatusError):
                    sdk.chat.completions.create(
                        model=endpoint["model_identity"],
                        messages=asked,  # type: ignore[arg-type]
                    )
            assert sum(counted(client, "inferd_agent_requests").values()) == number


def test_a_run_ends_when_its_upstream_is_stopped_by_force(tmp_path: Path) -> None:
    config = LOCAL_ROUTE + ROUTE.replace('model = "opus"', 'upstream = "local"')
    server = llama_server_path()
    with (
        agent_daemon(tmp_path, config, server=server) as daemon,
        connected(daemon.socket) as client,
        begin(own_route(client), f"late {tmp_path}/stopped /v1/messages") as stream,
    ):
        read_until(stream, b"begun")
        (key,) = (one["instance_key"] for one in runtimes(client) if one["pid"])
        ask(client, "runtime.stop", instance_key=key, force=True)
        began = time.monotonic()
        (tmp_path / "stopped").touch()
        told = read_until(stream, b'data: {"error"')
        assert time.monotonic() - began < RETURN_PATIENCE_S
        assert b"stopped by force" in told
        wait_until(lambda: daemon.processes() == [daemon.pid], SLOW_S, "the end of the run")
