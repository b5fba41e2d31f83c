"""Long messages that are decoded elsewhere: what they mean, and in which order, stays the same."""

import json

from hypothesis import given
from hypothesis import strategies as st

from inferd_proto import (
    CancelReceived,
    Event,
    FrameType,
    MessageHeld,
    Refused,
    RequestReceived,
    ServerConnection,
    decode_held,
    pack,
)
from inferd_proto.account import FREE_MESSAGE_BYTES

TEXT = [{"type": "text", "text": "hi"}]
VIDEO = [{"kind": "video", "id": "v"}]


def frame(**fields: object) -> bytes:
    return pack(FrameType.JSON, json.dumps(fields).encode())


def ask(id_: str, **fields: object) -> bytes:
    messages = [{"role": "user", "content": TEXT}]
    return frame(wire_version=1, id=id_, **{"messages": messages, **fields})


PIECES = [
    ask("a"),
    ask("a"),  # in flight by then
    ask("b", attachments=VIDEO),
    frame(type="attachment_blob", attachment_id="v", len=3),
    pack(FrameType.BLOB, b"abc"),
    frame(wire_version=1, op="cancel", id="b"),
    ask("c", messages=[]),
    frame(wire_version=1, id="d", op="status"),
    pack(FrameType.JSON, b"what?"),
    frame(wire_version=2, id="e"),
]


class Purse:
    """An account that is easy to look into."""

    limit = 10**9

    def __init__(self) -> None:
        self.held = 0

    def take(self, count: int) -> bool:
        self.held += count
        return True

    def give_back(self, count: int) -> None:
        self.held -= count
        assert self.held >= 0


def events(connection: ServerConnection, data: bytes) -> list[Event]:
    connection.receive_data(data)
    found: list[Event] = []
    while (event := connection.next_event()) is not None:
        while isinstance(event, MessageHeld):
            assert connection.next_event() is None
            assert not connection.at_rest
            event = connection.resume(decode_held(event.encoding, event.payload))
        if event is not None:
            found.append(event)
    return found


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(0, 120))
def test_the_events_are_the_same(pieces: list[bytes], hold_over: int) -> None:
    stream = b"".join(pieces)
    plain, held = ServerConnection(), ServerConnection(hold_over=hold_over)
    assert events(held, stream) == events(plain, stream)
    assert held.in_flight == plain.in_flight
    assert repr(held) == repr(plain)


def test_what_follows_waits_for_it() -> None:
    connection = ServerConnection(hold_over=60)
    connection.receive_data(ask("long") + frame(wire_version=1, op="cancel", id="long"))
    held = connection.next_event()
    assert isinstance(held, MessageHeld)
    assert connection.next_event() is None
    asked = connection.resume(decode_held(*held))
    assert isinstance(asked, RequestReceived)
    assert connection.next_event() == CancelReceived("long")


def test_short_ones_are_not_held() -> None:
    connection = ServerConnection(hold_over=len(ask("a")))
    connection.receive_data(ask("a"))
    assert isinstance(connection.next_event(), RequestReceived)


def test_its_bytes_stay_charged_until_it_is_known_what_it_is() -> None:
    purse = Purse()
    connection = ServerConnection(account=purse, hold_over=100)
    size = FREE_MESSAGE_BYTES + 10
    for long, charged in ((ask("a", pad="x" * size), True), (frame(id="b", pad="x" * size), False)):
        connection.receive_data(long)
        held = connection.next_event()
        assert isinstance(held, MessageHeld)
        assert purse.held == len(held.payload)
        event = connection.resume(decode_held(*held))
        assert isinstance(event, RequestReceived if charged else Refused)
        assert purse.held == (event.charged if isinstance(event, RequestReceived) else 0)
        purse.give_back(purse.held)


def test_a_connection_that_was_closed_meanwhile_goes_nowhere() -> None:
    purse = Purse()
    connection = ServerConnection(account=purse, hold_over=100)
    connection.receive_data(ask("a", pad="x" * FREE_MESSAGE_BYTES))
    held = connection.next_event()
    assert isinstance(held, MessageHeld)
    connection.close()
    assert connection.resume(decode_held(*held)) is None
    assert connection.in_flight == []
