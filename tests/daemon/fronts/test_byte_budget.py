"""Bytes of requests over all sessions: charged, refused, and given back."""

import json
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.base import Batch, GenerateRequest
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.fronts.byte_budget import ByteBudget, SessionAccount
from inferd_proto import FrameType, pack
from inferd_proto.frames import frame_header
from tests.daemon.fronts.conversation import HELLO, daemon, eventually, view_of

LIMIT = 1_000_000


class Waiting(MockBackend):
    """Answers nothing."""

    def __init__(self) -> None:
        super().__init__("waiting", MockConfig())

    async def generate(self, _request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        await trio.sleep_forever()
        yield []


def large(request_id: str, size: int = 600_000) -> bytes:
    fields = {"wire_version": 1, "id": request_id, "messages": HELLO, "pad": "x" * size}
    return pack(FrameType.JSON, json.dumps(fields).encode())


def test_a_session_gives_back_no_more_than_it_took() -> None:
    budget = ByteBudget(10)
    one, other = SessionAccount(budget), SessionAccount(budget)
    assert one.take(6)
    assert other.take(4)
    assert not one.take(1)
    one.give_back(2)
    assert other.take(2)
    one.close()
    one.give_back(4)
    assert (budget.held, one.held, other.held) == (6, 0, 6)
    other.close()
    assert budget.held == 0


async def test_what_a_request_took_is_held_until_it_ends_and_then_there_is_room() -> None:
    async with daemon(view_of(Waiting()), limit=LIMIT) as running:
        one, other = running.connect(), running.connect()
        await one.say_bytes(large("a"))
        await eventually(lambda: running.budget.held > 600_000)
        await other.say_bytes(large("b"))
        refused = await other.hear()
        assert (refused["code"], refused["id"]) == ("queue_full", "b")
        assert "try again when other requests have ended" in refused["message"]
        await other.say(op="status", id="s")
        assert (await other.hear())["type"] == "result"
        await one.say(op="cancel", id="a")
        await one.hear_end("a")
        await eventually(lambda: running.budget.held == 0)
        await other.say_bytes(large("b"))
        await eventually(lambda: running.budget.held > 600_000)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_client_that_leaves_gives_everything_back(whole: bool) -> None:
    async with daemon(view_of(Waiting()), limit=LIMIT) as running:
        client = running.connect()
        data = large("a")
        await client.say_bytes(data if whole else data[:1000])
        await eventually(lambda: running.budget.held > 600_000)
        client.leave()
        await eventually(lambda: running.budget.held == 0)
        await eventually(lambda: not running.sessions)


@pytest.mark.parametrize(
    "half",
    [
        b"\x80",
        frame_header(FrameType.JSON, 900_000),
        frame_header(FrameType.JSON, 100) + b"{",
        pack(
            FrameType.JSON,
            json.dumps(
                {
                    "wire_version": 1,
                    "messages": HELLO,
                    "attachments": [{"kind": "video", "id": "v"}],
                }
            ).encode(),
        ),
    ],
)
async def test_a_message_that_stops_half_way_is_given_up(
    half: bytes, autojump_clock: MockClock
) -> None:
    async with daemon(view_of(Waiting()), limit=LIMIT, read_timeout_s=0.1) as running:
        client, idle = running.connect(), running.connect()
        started = trio.current_time()
        await client.say_bytes(half)
        await client.hear_close()
        assert trio.current_time() - started > 0.09
        await eventually(lambda: running.budget.held == 0)
        await idle.say(op="status", id="s")  # it said nothing for longer than that
        assert (await idle.hear())["type"] == "result"


async def test_a_message_that_goes_on_is_waited_for(autojump_clock: MockClock) -> None:
    async with daemon(view_of(Waiting()), read_timeout_s=0.4) as running:
        client = running.connect()
        data = pack(FrameType.JSON, b'{"wire_version":1,"op":"status","id":"s"}')
        started = trio.current_time()
        for byte in data[:12]:
            await client.say_bytes(bytes([byte]))
            await trio.sleep(0.05)
        await client.say_bytes(data[12:])
        assert (await client.hear())["type"] == "result"
        assert trio.current_time() - started > 0.5
