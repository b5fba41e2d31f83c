"""What is taken out of a paused client's socket, what stays in it, and a session that does so."""

import json
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.fronts.session import LOOK_AGAIN_S
from inferd_daemon.fronts.waiting_message import LOOK_BYTES, Unread, take_short
from inferd_proto import FrameType, pack
from tests.daemon.fronts.conversation import HELLO, daemon, eventually, frame, view_of

RENEW = frame({"id": "n", "op": "lease.renew", "lease_ref": "l", "ttl_ms": 1000})
CANCEL = frame({"id": "n", "op": "cancel"})
GENERATE = frame({"id": "g", "messages": HELLO})
Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_nothing_and_the_end(sockets: Sockets) -> None:
    ours, theirs = sockets
    with pytest.raises(BlockingIOError):
        take_short(theirs)
    ours.shutdown(socket.SHUT_WR)
    assert take_short(theirs) == b""


def test_short_messages_are_taken_one_by_one_up_to_the_first_that_is_not(sockets: Sockets) -> None:
    ours, theirs = sockets
    ours.sendall(RENEW + CANCEL + GENERATE + RENEW)
    assert [take_short(theirs) for _ in range(4)] == [RENEW, CANCEL, Unread.LATER, Unread.LATER]
    assert theirs.recv(LOOK_BYTES) == GENERATE + RENEW


@pytest.mark.parametrize(
    "message",
    [
        frame({"id": "e", "op": "lease.ensure", "target": "r"}),
        frame({"id": "w", "op": "watch"}),
        frame({"id": "n", "op": "lease.renew", "lease_ref": "l" * LOOK_BYTES}),
        pack(FrameType.JSON, b"{"),
        pack(FrameType.JSON, b""),
        pack(FrameType.BLOB, b"xyz"),
        pack(FrameType.BLOB, b"x" * LOOK_BYTES)[:100],
        b"\xff" * 6,
        b"\x01\x09x",
        # Its length in more bytes than it takes.
        bytes([RENEW[0] | 0x80, 0]) + RENEW[1:],
    ],
    ids=["ensure", "watch", "long", "broken", "empty", "blob", "half", "length", "type", "padded"],
)
def test_what_stays(sockets: Sockets, message: bytes) -> None:
    ours, theirs = sockets
    ours.sendall(message)
    assert take_short(theirs) is Unread.LATER
    assert theirs.recv(2 * LOOK_BYTES) == message


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_the_rest_of_a_short_message_may_come(sockets: Sockets, cut: int) -> None:
    ours, theirs = sockets
    ours.sendall(RENEW[:cut])
    assert take_short(theirs) is Unread.PARTIAL
    ours.sendall(RENEW[cut:])
    assert take_short(theirs) == RENEW


def slow() -> MockBackend:
    return MockBackend("mock", MockConfig(token_ms=5))


async def test_a_paused_session_answers_short_messages_and_leaves_the_others(
    autojump_clock: MockClock,
) -> None:
    async with daemon(view_of(slow())) as running:
        client = running.connect()
        await client.generate("long", max_tokens=100_000)
        assert (await client.hear())["type"] == "frame"
        (session,) = running.sessions
        session.pause()
        await eventually(lambda: session.settled is False and session._heard_out)
        half = frame({"id": "s", "op": "status"})
        await client.say_bytes(half[:9])
        await trio.sleep(2 * LOOK_AGAIN_S)
        await client.say_bytes(half[9:])
        assert (await client.hear_end("s"))["type"] == "result"
        assert not session.settled
        await client.say(id="long", op="cancel")
        assert (await client.hear_end("long"))["stop_reason"] == "cancelled"
        await eventually(lambda: session.settled and session.resting)
        await client.say(id="s2", op="status")
        assert (await client.hear_end("s2"))["type"] == "result"
        await eventually(lambda: session.resting)
        # Heard no more: it is for the next owner of the socket, as it came.
        session.hush()
        await trio.testing.wait_all_tasks_blocked()
        await client.say(id="s3", op="status")
        await trio.sleep(2 * LOOK_AGAIN_S)
        assert session.resting
        with socket.socket(fileno=session.hand_over()) as handed:
            assert json.loads(handed.recv(LOOK_BYTES)[2:])["id"] == "s3"


async def test_what_is_not_short_waits_and_so_does_all_behind_it(autojump_clock: MockClock) -> None:
    async with daemon(view_of(slow())) as running:
        client = running.connect()
        await client.say(id="s", op="status")
        await client.hear_end("s")
        (session,) = running.sessions
        session.pause()
        await client.generate("later", max_tokens=1)
        await client.say(id="s2", op="status")
        await trio.sleep(2 * LOOK_AGAIN_S)
        assert session.resting
        assert session.settled
        session.hush()
        with socket.socket(fileno=session.hand_over()) as handed:
            left = handed.recv(LOOK_BYTES)
        assert b"later" in left
        assert b"s2" in left


async def test_who_leaves_a_paused_session_ends_what_it_asked_for(
    autojump_clock: MockClock,
) -> None:
    backend = slow()
    async with daemon(view_of(backend)) as running:
        client = running.connect()
        await client.generate("long", max_tokens=100_000)
        assert (await client.hear())["type"] == "frame"
        (session,) = running.sessions
        session.pause()
        await eventually(lambda: session._heard_out)
        client.leave()
        await eventually(lambda: not running.sessions)
