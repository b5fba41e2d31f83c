"""Requests and cancels in any order at any pace: each request has one end, and nothing is left."""

import random
from collections import Counter

import pytest
import trio

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from tests.daemon.fronts.conversation import HELLO, Conversation, daemon, eventually, view_of

REQUESTS = 40
V1 = [{"role": "user", "content": "hi"}]
TOOL = {"name": "look", "input_schema": {}}


def request(rng: random.Random) -> dict[str, object]:
    """Any kind of request, in any manner."""
    tokens = rng.choice([1, 5, 50, 300])
    return rng.choice(
        [
            {"messages": HELLO, "max_tokens": tokens, "stream": rng.random() < 0.7},
            {"messages": HELLO, "max_tokens": tokens, "queue_events": True, "thinking": True},
            {"messages": HELLO, "tools": [TOOL], "tool_choice": "required"},
            {"api_version": 1, "messages": V1, "max_tokens": tokens, "queue_events": True},
            {"op": "embed", "input": ["x"] * tokens},
            {"op": "rerank", "query": "x", "documents": ["x", "y"]},
            {"op": "status"},
            {"messages": HELLO, "model": "nowhere"},
            {"messages": []},
        ]
    )


async def ask(client: Conversation, rng: random.Random) -> None:
    """All requests, with cancels of some in between."""
    for number in range(REQUESTS):
        await client.say(id=str(number), client=str(rng.randrange(3)), **request(rng))
        if rng.random() < 0.5:
            await client.say(op="cancel", id=str(rng.randrange(number + 1)))
        if rng.random() < 0.3:
            await trio.sleep(rng.random() * 0.004)


@pytest.mark.parametrize("seed", range(12))
async def test_every_request_ends_once(seed: int) -> None:
    rng = random.Random(seed)
    config = MockConfig(
        token_ms=rng.choice([0.0, 0.0, 0.3]),
        first_token_ms=rng.choice([0.0, 1.0]),
        drop_after=rng.choice([None, None, 7]),
    )
    view = view_of(
        MockBackend("mock", config),
        active_permits=rng.choice([1, 3, 50]),
        queue_depth=rng.choice([0, 5, 50]),
        max_wait_ms=rng.choice([None, 20]),
    )
    ends: Counter[str] = Counter()
    async with daemon(view) as running:
        client = running.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, rng)
            while sum(ends.values()) < REQUESTS:
                answer = await client.hear()
                assert answer["id"] not in ends, f"after its end: {answer}"
                if answer["type"] not in ("frame", "token"):
                    ends[answer["id"]] += 1
                if rng.random() < 0.01:
                    await trio.sleep(0.005)
        assert set(ends) == {str(number) for number in range(REQUESTS)}
        await eventually(lambda: not running.sessions[0].busy)
        assert running.sessions[0]._connection.in_flight == []
        admission = view.router.find("r").gate.admission
        assert (admission.active, admission.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(6))
async def test_clients_that_leave_in_the_middle_leave_nothing(seed: int) -> None:
    rng = random.Random(seed)
    backend = MockBackend("mock", MockConfig(token_ms=rng.choice([0.0, 0.5])))
    view = view_of(backend, active_permits=2, queue_depth=20)
    async with daemon(view) as running:
        for _ in range(10):
            client = running.connect()
            with trio.move_on_after(rng.random() * 0.02):
                await ask(client, rng)
                await trio.sleep_forever()
            client.leave()
        await eventually(lambda: not running.sessions)
        admission = view.router.find("r").gate.admission
        assert (admission.active, admission.waiting) == (0, 0)
