"""Queues, turns and breakers as clients of the real daemon see them."""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inferd_proto import FrameType, pack
from tests.support.daemon import RunningDaemon, running_daemon, wait_until
from tests.support.wire_client import HELLO, WireClient, connected

CONFIG = """
[backends.one]
kind = "mock"
slots = 1
first_token_ms = 60000

[backends.another]
kind = "mock"
first_token_ms = 60000

[backends.quick]
kind = "mock"
slots = 1
first_token_ms = 20
max_tokens = 1

[backends.fails]
kind = "mock"
error = "out of order"
breaker = { open_s = 300 }

[backends.stands_in]
kind = "mock"

[routes.slow]
backends = ["one"]
queue_depth = 3

[routes.hasty]
backends = ["another"]
queue_depth = 3
max_wait_ms = 50
active_permits = 1

[routes.beside]
backends = ["one"]
max_wait_ms = 50

[routes.along]
backends = ["one"]

[routes.quick]
backends = ["quick"]
queue_depth = 300

[routes.alone]
backends = ["fails"]

[routes.pair]
backends = ["fails", "stands_in"]

[backends.fails_as_well]
kind = "mock"
error = "out of order"
breaker = { open_s = 1.0 }

[routes.back]
backends = ["fails_as_well", "one"]

[routes.again]
backends = ["fails_as_well"]

[backends.many]
kind = "mock"
slots = 8
first_token_ms = 60000

[routes.few]
backends = ["many"]
limits = { peer_active = 1, peer_queued = 1 }

[routes.brief]
backends = ["many"]
max_wait_ms = 50
limits = { peer_active = 1 }

[routes.mixed]
backends = ["silent", "stands_in"]

[backends.silent]
kind = "openai_compat"
slots = 1
tools = false
"""
TOOLS = [{"name": "f", "description": "", "input_schema": {"type": "object"}}]


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A server that accepts, and never says a word."""
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


@pytest.fixture
def daemon(silent: Path) -> Iterator[RunningDaemon]:
    config = CONFIG + f'uds = "{silent}"\n[daemon]\ndrain_timeout_s = 0.1\n'
    with running_daemon(config=config) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[WireClient]:
    with connected(daemon.socket) as connection:
        yield connection


def routes(client: WireClient) -> dict[str, dict[str, Any]]:
    client.say(id="routes", op="route.list")
    return {route["name"]: route for route in client.hear_end("routes")["value"]["routes"]}


def generate_together(client: WireClient, requests: Iterable[Mapping[str, object]]) -> None:
    """In one piece: none of them is late, whatever holds the client up."""
    messages = ({"wire_version": 1, "messages": HELLO, **request} for request in requests)
    frames = (pack(FrameType.JSON, json.dumps(message).encode()) for message in messages)
    client.sock.sendall(b"".join(frames))


def place(answer: dict[str, Any]) -> int:
    assert answer["block"]["type"] == "queued"
    position: int = answer["block"]["position"]
    return position


def test_who_asks_is_told_the_place_and_its_changes(
    daemon: RunningDaemon, client: WireClient
) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(connected(daemon.socket)) for _ in range(3)]
        for number, other in enumerate(others):
            other.generate(model="slow", queue_events=True)
            if number:
                assert place(other.hear()) == number
            else:
                wait_until(lambda: routes(client)["slow"]["active"] == 1, 5, "the first one's turn")
        client.generate(model="slow", queue_events=True)
        assert place(client.hear()) == 3
        others[1].sock.close()
        assert place(client.hear()) == 2
        others[0].say(op="cancel", id="1")
        assert place(client.hear()) == 1
        client.say(op="cancel", id="1")
        end = client.hear()
    assert (end["type"], end["stop_reason"], end["backend"]) == ("done", "cancelled", "")


def test_who_does_not_ask_is_told_nothing(daemon: RunningDaemon, client: WireClient) -> None:
    client.generate("1", model="slow")
    client.generate("2", model="slow")
    client.say(op="cancel", id="2")
    assert client.hear()["type"] == "done"


def test_a_full_queue_and_a_long_wait_tell_position_and_estimate(client: WireClient) -> None:
    for number in range(4):
        client.generate(f"{number}", model="slow")
    client.generate("full", model="slow")
    full = client.hear_end("full")  # at once: none of the others ends while it is waited for
    assert (full["code"], full["details"]) == ("queue_full", {"position": 4, "estimate_ms": None})
    assert full["message"] == (
        "route slow is full (3 waiting, 1 at once); position 4 would be next"
    )
    for number in range(2):
        client.generate(f"hasty{number}", model="hasty")
    late = client.hear_end("hasty1")
    assert (late["code"], late["details"]) == ("timeout", {"position": 1, "estimate_ms": None})
    assert late["message"] == "waited 0.05 s for route hasty and stood at position 1"


def test_routes_over_one_backend_share_its_slots(client: WireClient) -> None:
    client.generate("holds", model="slow")
    client.generate("waits", model="beside")
    late = client.hear_end("waits")
    assert (late["code"], late["details"]["position"]) == ("timeout", 1)
    listed = routes(client)
    assert [listed[name]["active"] for name in ("slow", "beside")] == [1, 0]
    client.generate("waits", model="along", queue_events=True)
    assert place(client.hear()) == 1
    client.say(op="cancel", id="holds")
    wait_until(lambda: routes(client)["along"]["active"] == 1, 5, "its turn")
    assert routes(client)["along"]["backends"][0]["in_flight"] == 1


def test_who_needs_tools_does_not_wait_for_a_backend_without(
    client: WireClient, silent: Path
) -> None:
    for number in range(2):
        client.generate(f"plain{number}", model="mixed")
    wait_until(lambda: routes(client)["mixed"]["queued"] == 1, 5, "a queue")
    for number in range(3):
        client.generate(f"tool{number}", model="mixed", tools=TOOLS)
        assert client.hear_end(f"tool{number}")["backend"] == "stands_in"
    mixed = routes(client)["mixed"]
    assert (mixed["active"], mixed["queued"]) == (1, 1)
    assert [backend["in_flight"] for backend in mixed["backends"]] == [1, 0]


def test_a_client_at_its_limit_is_told_that(client: WireClient) -> None:
    for number in range(3):
        client.generate(f"{number}", model="few", client="batch")
    full = client.hear_end("2")
    assert (full["code"], full["details"]["position"]) == ("queue_full", 2)
    assert full["message"] == (
        "this client's share of route few is full (1 waiting, 1 of this client at once);"
        " position 2 would be next"
    )
    client.generate("other", model="few", client="chat")
    wait_until(lambda: routes(client)["few"]["active"] == 2, 5, "another client's run")
    for number in range(2):
        client.generate(f"brief{number}", model="brief", client="batch")
    late = client.hear_end("brief1")
    assert late["code"] == "timeout"
    assert late["message"] == (
        "waited 0.05 s for route brief (1 of this client at once) and stood at position 1"
    )


def test_who_waits_is_let_in_when_a_breaker_lets_one_try(client: WireClient) -> None:
    """Nobody else comes or goes that could be the occasion."""
    client.generate("holds", model="slow")
    wait_until(lambda: routes(client)["slow"]["active"] == 1, 5, "a run on the other backend")
    failed = 0
    while True:
        client.generate(f"{failed}", model="back", queue_events=True)
        answer = client.hear()
        if answer["type"] != "error":
            break
        # who comes when the breaker has been open for its time is the one that tries
        assert answer["message"] == "out of order"
        failed += 1
        assert failed < 100
    assert failed >= 3
    assert (answer["id"], place(answer)) == (f"{failed}", 1)
    end = client.hear()
    assert (end["id"], end["message"]) == (f"{failed}", "out of order")


def test_estimates_come_from_what_was_served(client: WireClient) -> None:
    client.generate("first", model="quick")
    client.hear_end("first")
    asked = [{"id": f"{n}", "model": "quick", "queue_events": True} for n in range(10)]
    generate_together(client, asked)
    while (answer := client.hear()).get("block", {}).get("type") != "queued":
        pass
    queued = answer["block"]
    assert queued["position"] == 1
    assert queued["estimate_ms"] >= 20


def test_one_request_waits_for_two_of_a_hundred_at_most(client: WireClient) -> None:
    """By one connection, where the order of the answers is that of the turns."""
    asked: list[dict[str, object]]
    asked = [{"id": f"{number}", "client": "greedy"} for number in range(100)]
    asked.append({"id": "modest", "client": "modest", "queue_events": True})
    generate_together(client, ({"model": "quick", **one} for one in asked))
    heard = [client.hear()]
    while (heard[-1]["id"], heard[-1]["type"]) != ("modest", "done"):
        heard.append(client.hear())
    told = next(index for index, answer in enumerate(heard) if answer["id"] == "modest")
    assert place(heard[told]) <= 2
    assert sum(answer["type"] == "done" for answer in heard[told:-1]) <= 2
    assert sum(answer["type"] == "done" for answer in heard) < 50  # the others wait still


def test_clients_that_leave_leave_no_trace(daemon: RunningDaemon, client: WireClient) -> None:
    for _ in range(3):
        with connected(daemon.socket) as other:
            for number in range(4):
                other.generate(f"{number}", model="slow", queue_events=number % 2 == 0)
            wait_until(lambda: routes(client)["slow"]["queued"] == 3, 5, "a full queue")
        wait_until(lambda: is_at_rest(routes(client)["slow"]), 5, "a route without a trace")


def is_at_rest(route: dict[str, Any]) -> bool:
    waiting_and_running = (route["active"], route["queued"], route["peers"])
    return waiting_and_running == (0, 0, []) and not route["backends"][0]["in_flight"]


def test_who_waits_is_listed(client: WireClient) -> None:
    for number in range(3):
        client.generate(f"{number}", model="slow", client="batch")
    wait_until(lambda: routes(client)["slow"]["queued"] == 2, 5, "a queue")
    slow = routes(client)["slow"]
    (peer,) = slow["peers"]
    assert {key: peer[key] for key in ("client", "active", "queued", "weight")} == {
        "client": "batch",
        "active": 1,
        "queued": 2,
        "weight": 1,
    }
    assert (slow["permits"], slow["max_wait_ms"], slow["backends"][0]["in_flight"]) == (1, None, 1)


def test_a_failing_backend_is_left_alone_for_a_while(client: WireClient) -> None:
    for _ in range(3):
        client.generate(model="alone")
        assert client.hear()["message"] == "out of order"
    client.generate(model="alone")
    refused = client.hear()
    assert refused["code"] == "backend_unavailable"
    assert "fails is not ready: its breaker is open" in refused["message"]
    assert "out of order" in refused["message"]
    breaker = routes(client)["alone"]["backends"][0]["breaker"]
    assert (breaker["state"], breaker["failures"]) == ("open", 3)
    client.generate(model="pair")
    assert client.hear_end()["backend"] == "stands_in"


def test_a_breaker_lets_one_try_and_opens_again(client: WireClient) -> None:
    for _ in range(3):
        client.generate(model="again")
        assert client.hear()["message"] == "out of order"
    wait_until(
        lambda: routes(client)["again"]["backends"][0]["breaker"]["state"] == "half_open",
        5,
        "a breaker that lets one try",
    )
    generate_together(client, ({"id": one, "model": "again"} for one in ("tries", "next")))
    ends = {answer["id"]: answer["message"] for answer in (client.hear(), client.hear())}
    assert ends["tries"] == "out of order"
    assert "its breaker is open for another" in ends["next"]
