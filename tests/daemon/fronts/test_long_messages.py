"""Long messages are decoded beside the loop, and come to the same as short ones."""

import threading
from typing import Any

import pytest

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.fronts import session
from inferd_daemon.fronts.session import DECODED_APART_BYTES
from inferd_proto import decode_held
from tests.daemon.fronts.conversation import Conversation, daemon, eventually, view_of

LONG = "word " * (DECODED_APART_BYTES // 4)


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


@pytest.fixture
def decoded_in(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which long messages were decoded."""
    threads: list[threading.Thread] = []

    def decode(*held: Any) -> object:  # noqa: ANN401
        threads.append(threading.current_thread())
        return decode_held(*held)

    monkeypatch.setattr(session, "decode_held", decode)
    return threads


async def ask(client: Conversation, request_id: str, text: str) -> None:
    await client.say(id=request_id, messages=said(text), max_tokens=1)


async def test_a_long_message_is_decoded_in_a_thread_and_answered(
    decoded_in: list[threading.Thread],
) -> None:
    async with daemon(view_of(MockBackend("mock", MockConfig()))) as running:
        client = running.connect()
        await ask(client, "short", "hi")
        assert (await client.hear_end("short"))["stop_reason"] == "max_tokens"
        assert decoded_in == []
        await ask(client, "long", LONG)
        assert (await client.hear_end("long"))["stop_reason"] == "max_tokens"
        assert decoded_in != [threading.main_thread()]
        await client.say(id="wrong", messages=said(LONG), temperature="hot")
        refused = await client.hear_end("wrong")
        assert refused["code"] == "invalid_request"
        assert "temperature" in refused["message"]
        assert running.budget.held == 0
    assert len(decoded_in) == 2


async def test_without_a_thread_it_is_decoded_where_it_came(
    decoded_in: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> None:
        raise OSError("cannot start a thread")

    monkeypatch.setattr(session, "in_thread", none)
    async with daemon(view_of(MockBackend("mock", MockConfig()))) as running:
        client = running.connect()
        await ask(client, "long", LONG)
        assert (await client.hear_end("long"))["stop_reason"] == "max_tokens"
    assert decoded_in == [threading.main_thread()]


async def test_who_leaves_meanwhile_is_let_go(decoded_in: list[threading.Thread]) -> None:
    async with daemon(view_of(MockBackend("mock", MockConfig()))) as running:
        client = running.connect()
        await ask(client, "long", LONG)
        client.leave()
        await eventually(lambda: bool(decoded_in) and not running.budget.held)
