"""The routes of leases: whom they let in, what they carry, and how they end."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from inferd_daemon.engines.base import Health
from inferd_daemon.supervision.leases import relay
from inferd_daemon.supervision.runtimes.machine import State
from inferd_proto import EndpointDescriptor
from tests.daemon.fronts.http.leased import ADDRESS, Leased, leased
from tests.support.lone_runtimes import SleepBlueprint, have, owner
from tests.support.scripted_upstream import (
    CHUNKS_END,
    EVENTS_HEAD,
    Close,
    Hold,
    Step,
    chunk,
    serve,
    whole,
)

ANSWER = b'{"choices":[{"message":{"content":"ok"}}]}'


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Leased]:
    async with leased(tmp_path) as one:
        yield one


@pytest.fixture
def blueprint(tmp_path: Path) -> SleepBlueprint:
    return SleepBlueprint("m", tmp_path, idle_ttl_s=0.0)


def bearer(endpoint: EndpointDescriptor) -> str:
    return endpoint.headers["Authorization"].removeprefix("Bearer ")


def kind_of(answer: object) -> tuple[int, str]:
    body = answer.json()["error"]  # type: ignore[attr-defined]
    assert set(body) == {"message", "type", "param", "code"}
    return answer.status_code, body["type"]  # type: ignore[attr-defined]


async def test_a_request_reaches_the_runtime_with_its_key_and_comes_back_as_it_is(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    async with serve(tmp_path, [whole(200, ANSWER)]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        assert endpoint.uds is None
        assert endpoint.base_url == f"{ADDRESS}/leases/{endpoint.lease_ref}/v1"
        assert endpoint.health_ref == f"{ADDRESS}/leases/{endpoint.lease_ref}/health"
        body = b'{"model": "m",  "messages": []}'
        answer = await front.http.post(
            f"{endpoint.base_url}/chat/completions", content=body, headers=endpoint.headers
        )
        assert (answer.status_code, answer.content) == (200, ANSWER)
        (received,) = upstream.requests
        assert (received.method, received.path) == ("POST", "/v1/chat/completions")
        assert received.body == body
        assert received.headers["authorization"] == "Bearer runtimes-own-key"
        assert bearer(endpoint) not in str(received)


@pytest.mark.parametrize(
    "path", ["completions", "embeddings", "rerank", "responses", "messages?beta=true"]
)
async def test_what_else_a_runtime_serves_passes_through(
    path: str, front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    async with serve(tmp_path, [whole(501, b'{"error":"no"}')]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        answer = await front.http.post(
            f"{endpoint.base_url}/{path}",
            json={"model": "m"},
            headers={"x-api-key": bearer(endpoint), "anthropic-version": "2023-06-01"},
        )
        assert (answer.status_code, answer.content) == (501, b'{"error":"no"}')
        assert upstream.requests[0].path == f"/v1/{path}"
        assert upstream.requests[0].headers["anthropic-version"] == "2023-06-01"
        assert "x-api-key" not in upstream.requests[0].headers


async def test_a_cut_response_says_so(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    """Whole or as events; its length is then another one."""
    usage = {"input_tokens": 5, "output_tokens": 3}
    last = {"status": "completed", "output": [], "usage": usage}
    event = json.dumps({"type": "response.completed", "response": last}).encode()
    events = [chunk(b"event: response.comple"), chunk(b"ted\ndata: " + event + b"\n\n")]
    script = [whole(200, json.dumps(last).encode()), EVENTS_HEAD, *events, CHUNKS_END]
    async with serve(tmp_path, script[:1], script[1:]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        url = f"{endpoint.base_url}/responses"
        form = {"format": {"type": "json_object"}}
        body = {"model": "m", "max_output_tokens": 3, "text": form}
        answer = await front.http.post(url, json=body, headers=endpoint.headers)
        found = answer.json()
        assert answer.headers.get("content-length") is None
        assert (found["status"], found["usage"]) == ("incomplete", usage)
        streamed = await front.http.post(url, json=body, headers=endpoint.headers)
        name, payload = streamed.text.strip().split("\n")
        assert name == "event: response.incomplete"
        assert json.loads(payload.removeprefix("data: "))["response"] == found
        for request in upstream.requests:
            asked = json.loads(request.body)
            assert asked == body | {"response_format": {"type": "json_object"}}
        wrong = body | {"text": {"format": {"type": "xml"}}}
        refused = await front.http.post(url, json=wrong, headers=endpoint.headers)
        assert kind_of(refused) == (400, "invalid_request_error")
        assert refused.json()["error"]["param"] == "text.format"


async def test_who_is_let_in(front: Leased, blueprint: SleepBlueprint, tmp_path: Path) -> None:
    async with serve(tmp_path, [whole(200, ANSWER)]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        other = (await have(front.whole, blueprint, transport="tcp")).endpoint
        direct = (await have(front.whole, blueprint, transport="uds")).endpoint
        assert direct.uds == upstream.uds
        post, url = front.http.post, f"{endpoint.base_url}/chat/completions"
        for headers in ({}, other.headers, {"Authorization": f"Basic {bearer(endpoint)}"}):
            answer = await post(url, json={"model": "m"}, headers=headers)
            assert kind_of(answer) == (401, "authentication_error")
            assert answer.headers["www-authenticate"] == "Bearer"
        for ref in ("lease-unknown", direct.lease_ref):
            unknown = f"{ADDRESS}/leases/{ref}/v1/chat/completions"
            answer = await post(unknown, json={"model": "m"}, headers=direct.headers)
            assert kind_of(answer) == (404, "not_found_error")
        assert not upstream.requests


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": "other"}', "model"),
        (b'{"model": 3}', "model"),
        (b"[]", None),
        (b"{", None),
        (b"", None),
        (b"[" * 10_000, None),
    ],
)
async def test_another_model_or_no_json_reaches_nobody(
    body: bytes, param: str | None, front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    async with serve(tmp_path, [whole(200, ANSWER)]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        answer = await front.http.post(
            f"{endpoint.base_url}/chat/completions", content=body, headers=endpoint.headers
        )
        assert kind_of(answer) == (400, "invalid_request_error")
        assert answer.json()["error"]["param"] == param
        assert "`model`" in answer.json()["error"]["message"] or param is None
        assert not upstream.requests


async def test_a_long_body_is_looked_at_and_passed_on(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    async with serve(tmp_path, [whole(200, ANSWER)]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        text = "x" * (2 << 20)
        for model, status in (("m", 200), ("other", 400)):
            answer = await front.http.post(
                f"{endpoint.base_url}/embeddings",
                json={"input": text, "model": model},
                headers=endpoint.headers,
            )
            assert answer.status_code == status
        assert [len(request.body) > len(text) for request in upstream.requests] == [True]


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 1), 200),
        (("127.8.9.1", 1), 200),
        (("::1", 1), 200),
        (("192.0.2.7", 1), 404),
        (("2001:db8::1", 1), 404),
    ],
)
async def test_leases_are_for_this_machine(
    client: tuple[str, int], status: int, front: Leased, blueprint: SleepBlueprint
) -> None:
    endpoint = (await have(front.whole, blueprint, transport="tcp")).endpoint
    transport = front.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    transport.client = client
    answer = await front.http.get(f"{endpoint.base_url}/models", headers=endpoint.headers)
    assert answer.status_code == status


async def test_the_model_is_listed_and_the_health_is_the_runtimes(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    endpoint = await front.relayed(blueprint, str(tmp_path / "none.sock"))
    listed = await front.http.get(f"{endpoint.base_url}/models", headers=endpoint.headers)
    assert [model["id"] for model in listed.json()["data"]] == ["m"]
    assert (await front.http.get(f"{endpoint.base_url}/models")).status_code == 401
    assert (await front.http.get(endpoint.health_ref)).json() == {"status": "ok"}
    wrong = {"Authorization": "Bearer x"}
    assert (await front.http.get(endpoint.health_ref, headers=wrong)).status_code == 401
    assert (await front.http.head(f"{ADDRESS}/leases/{endpoint.lease_ref}")).status_code == 200
    blueprint.engine.health = Health.DEGRADED
    runtime = front.whole.runtimes.get("m")
    assert runtime is not None
    with trio.fail_after(30):
        while runtime.state is not State.DEGRADED:
            await front.whole.runtimes.wait_changed()
    assert (await front.http.get(endpoint.health_ref)).json() == {"status": "degraded"}


async def test_each_owner_of_a_runtime_has_its_own_name_for_the_model(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    async with serve(tmp_path, [whole(200, ANSWER)]) as upstream:
        first = await front.relayed(blueprint, upstream.uds or "")
        other = SleepBlueprint("m", tmp_path)
        other.model_identity = "mine"
        second = (await have(front.whole, other, 2, transport="tcp")).endpoint
        assert (first.model_identity, second.model_identity) == ("m", "mine")
        for endpoint, model, status in (
            (first, "m", 200),
            (second, "mine", 200),
            (second, "m", 400),
        ):
            answer = await front.http.post(
                f"{endpoint.base_url}/embeddings", json={"model": model}, headers=endpoint.headers
            )
            assert answer.status_code == status
        listed = await front.http.get(f"{second.base_url}/models", headers=second.headers)
        assert [model["id"] for model in listed.json()["data"]] == ["mine"]


async def test_a_released_lease_answers_404_and_what_runs_ends(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    begun: list[Step] = [EVENTS_HEAD + chunk(b'data: {"choices":[]}\n\n'), Hold()]
    async with serve(tmp_path, begun) as upstream, trio.open_nursery() as nursery:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        bodies: list[bytes] = []

        async def stream() -> None:
            answer = await front.http.post(
                f"{endpoint.base_url}/chat/completions",
                json={"model": "m", "stream": True},
                headers=endpoint.headers,
            )
            bodies.append(answer.content)

        nursery.start_soon(stream)
        with trio.fail_after(30):
            await upstream.arrived.wait()
            await trio.testing.wait_all_tasks_blocked(0.02)
            await front.whole.keeper.release(endpoint.lease_ref, owner().claimant)
            await upstream.gone.wait()
            while not bodies:  # noqa: ASYNC110 (the other task appends)
                await trio.sleep(0.002)
        first, last = bodies[0].split(b"\n\n")[0], bodies[0].strip().split(b"\n\n")[-1]
        assert first == b'data: {"choices":[]}'
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "not_found"
        assert len(front.whole.calls) == 0
        answer = await front.http.get(endpoint.health_ref)
        assert kind_of(answer) == (404, "not_found_error")


async def test_a_stream_that_the_runtime_breaks_off_ends_with_an_error_event(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    async with serve(tmp_path, [EVENTS_HEAD + chunk(b"data: {}\n\n"), Close()]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        answer = await front.http.post(
            f"{endpoint.base_url}/chat/completions", json={}, headers=endpoint.headers
        )
        last = answer.content.strip().split(b"\n\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "backend_unavailable"


async def test_anthropics_clients_are_told_in_their_shape(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    """In the middle of a stream as before it."""
    begun = EVENTS_HEAD + chunk(b"event: ping\ndata: {}\n\nevent: half")
    async with serve(tmp_path, [begun, Close()]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        url = f"{endpoint.base_url}/messages"
        answer = await front.http.post(url, json={}, headers=endpoint.headers)
        name, data = answer.content.strip().split(b"\n\n")[-1].split(b"\n")
        assert name == b"event: error"
        told = json.loads(data.removeprefix(b"data: "))
        assert (told["type"], told["error"]["type"]) == ("error", "api_error")
        for headers, status, kind in (
            ({}, 401, "authentication_error"),
            (endpoint.headers, 400, "invalid_request_error"),
        ):
            answer = await front.http.post(url, json={"model": "x"}, headers=headers)
            assert answer.status_code == status
            assert answer.json() == {
                "type": "error",
                "error": {"type": kind, "message": answer.json()["error"]["message"]},
            }


async def test_a_whole_stream_is_passed_on_byte_by_byte(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path
) -> None:
    events = [b'data: {"a":1}\n\n', b"data: [DONE]\n\n"]
    script = [EVENTS_HEAD + b"".join(map(chunk, events)) + CHUNKS_END]
    async with serve(tmp_path, script) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        answer = await front.http.post(
            f"{endpoint.base_url}/chat/completions", json={}, headers=endpoint.headers
        )
        assert answer.content == b"".join(events)
        assert answer.headers["content-type"] == "text/event-stream"
        assert len(front.whole.calls) == 0


async def test_a_request_waits_for_a_runtime_that_restarts_or_is_told_when_to_come_back(
    front: Leased, blueprint: SleepBlueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(tmp_path, [whole(200, ANSWER)]) as upstream:
        endpoint = await front.relayed(blueprint, upstream.uds or "")
        runtime = front.whole.runtimes.get("m")
        assert runtime is not None
        assert runtime.supervisor.process is not None
        blueprint.engine.health = Health.LOADING
        runtime.supervisor.process.signal_group(signal.SIGKILL)
        with trio.fail_after(30):
            while runtime.state is not State.STARTING:
                await front.whole.runtimes.wait_changed()

        async def ask() -> int:
            answer = await front.http.post(
                f"{endpoint.base_url}/chat/completions", json={}, headers=endpoint.headers
            )
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
            return int(answer.status_code)

        with monkeypatch.context() as patch:
            patch.setattr(relay, "RETURN_PATIENCE_S", 0.05)
            assert await ask() == 503
        statuses: list[int] = []

        async def wait() -> None:
            statuses.append(await ask())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert not statuses
            blueprint.engine.health = Health.HEALTHY
        assert statuses == [200]


async def test_a_lease_on_the_socket_asks_for_no_front(
    front: Leased, blueprint: SleepBlueprint
) -> None:
    await have(front.whole, blueprint)
    assert front.front.asked == 0
    await have(front.whole, blueprint, transport="tcp")
    assert front.front.asked == 1
