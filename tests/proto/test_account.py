"""Large frames are charged before a byte of them is kept, and what has no room is read past."""

import gc
import json
import weakref

import pytest

from inferd_proto import (
    Error,
    ErrorCode,
    Event,
    FrameType,
    Refused,
    RequestReceived,
    ServerConnection,
    pack,
)
from inferd_proto.account import FREE_MESSAGE_BYTES
from inferd_proto.frames import frame_header

LARGE = 2 * FREE_MESSAGE_BYTES


class Purse:
    """An account that is easy to look into."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> bool:
        fits = self.held + count <= self.limit
        self.held += count if fits else 0
        return fits

    def give_back(self, count: int) -> None:
        self.held -= count
        assert self.held >= 0


def message(size: int, **fields: object) -> bytes:
    """A frame whose payload has exactly `size` bytes."""
    head = {"wire_version": 1, **fields, "pad": ""}
    payload = json.dumps(head).encode()
    return pack(FrameType.JSON, payload[:-2] + b" " * (size - len(payload)) + payload[-2:])


def ask(id_: str, size: int, attachments: int = 0) -> bytes:
    listed = [{"kind": "video", "id": str(index)} for index in range(attachments)]
    content = [{"type": "text", "text": "x"}]
    messages = [{"role": "user", "content": content}]
    return message(size, id=id_, messages=messages, attachments=listed)


def announce(id_: str, size: int) -> bytes:
    return message(200, type="attachment_blob", attachment_id=id_, len=size)


def blob(size: int) -> bytes:
    return pack(FrameType.BLOB, bytes(size))


def events_of(server: ServerConnection, *data: bytes, piece: int = 60_000) -> list[Event]:
    events: list[Event] = []
    whole = b"".join(data)
    for start in range(0, len(whole), piece):
        server.receive_data(whole[start : start + piece])
        while (event := server.next_event()) is not None:
            events.append(event)
    return events


def refusal_in(events: list[Event]) -> Refused:
    (refused,) = events
    assert isinstance(refused, Refused)
    return refused


def test_a_header_charges_what_it_announces_and_the_request_takes_it_along() -> None:
    purse = Purse(LARGE)
    server = ServerConnection(account=purse)
    data = ask("a", LARGE)
    assert events_of(server, data[:100]) == []
    assert purse.held == LARGE
    (event,) = events_of(server, data[100:])
    assert isinstance(event, RequestReceived)
    assert (event.charged, purse.held) == (LARGE, LARGE)
    server.send(Error("a", ErrorCode.INTERNAL, "x"))
    assert purse.held == LARGE  # whoever served it still has it


def test_small_messages_get_in_whatever_is_held() -> None:
    purse = Purse(0)
    server = ServerConnection(account=purse)
    (event,) = events_of(server, ask("a", FREE_MESSAGE_BYTES))
    assert isinstance(event, RequestReceived)
    assert event.charged == 0


def test_a_large_message_without_room_is_read_past_and_the_next_one_is_served() -> None:
    purse = Purse(LARGE - 1)
    server = ServerConnection(account=purse)
    data = ask("a", 50 * LARGE, attachments=1)
    for start in range(0, len(data) - 1, 60_000):
        assert events_of(server, data[start : start + 60_000][: len(data) - 1 - start]) == []
        assert server._reader.buffered_bytes == 0
    refused = refusal_in(events_of(server, data[-1:]))
    assert (refused.code, refused.close, refused.id) == (ErrorCode.QUEUE_FULL, False, "a")
    assert f"{50 * LARGE} more bytes" in refused.message
    assert f"at most {LARGE - 1} in memory" in refused.message
    assert events_of(server, announce("0", 5), blob(5)) == []  # its blob is read past
    (event,) = events_of(server, ask("b", 300))
    assert isinstance(event, RequestReceived)
    assert purse.held == 0


@pytest.mark.parametrize("order", [0, 1])
def test_a_blob_without_room_costs_its_request_and_gives_back_what_that_had(order: int) -> None:
    sizes = [400, 700] if order == 0 else [700, 400]
    purse = Purse(LARGE + 1000)
    server = ServerConnection(account=purse)
    upload = [ask("a", LARGE, attachments=2), announce("0", sizes[0]), blob(sizes[0])]
    assert events_of(server, *upload, announce("1", sizes[1])) == []
    assert purse.held == LARGE + sizes[0]
    refused = refusal_in(events_of(server, blob(sizes[1])))
    assert (refused.code, refused.close, refused.id) == (ErrorCode.QUEUE_FULL, False, "a")
    assert (purse.held, server.in_flight) == (0, [])
    (event,) = events_of(server, ask("a", 300))
    assert isinstance(event, RequestReceived)


def test_small_blobs_are_charged_too() -> None:
    purse = Purse(10)
    server = ServerConnection(account=purse)
    (event,) = events_of(server, ask("a", 300, attachments=1), announce("0", 10), blob(10))
    assert isinstance(event, RequestReceived)
    assert event.charged == purse.held == 10


@pytest.mark.parametrize(
    "payload",
    [
        b"{" * LARGE,
        b'{"wire_version":1,"op":"cancel","id":"a","pad":"' + b" " * LARGE + b'"}',
        b'{"wire_version":1,"id":"a","messages":[],"pad":"' + b" " * LARGE + b'"}',
    ],
)
def test_what_becomes_no_request_is_given_back_at_once(payload: bytes) -> None:
    purse = Purse(10 * LARGE)
    server = ServerConnection(account=purse)
    events_of(server, pack(FrameType.JSON, payload))
    assert purse.held == 0


def test_an_upload_that_ends_early_gives_back_what_it_had() -> None:
    purse = Purse(10 * LARGE)
    server = ServerConnection(account=purse)
    events_of(server, ask("a", LARGE, attachments=2), announce("0", LARGE), blob(LARGE))
    assert purse.held == 2 * LARGE
    events_of(server, announce("1", LARGE), frame_header(FrameType.BLOB, LARGE))
    assert purse.held == 3 * LARGE
    server.send(Error("a", ErrorCode.INTERNAL, "x"))
    assert purse.held == LARGE  # the blob that is still coming in
    events_of(server, bytes(LARGE))
    assert purse.held == 0


def test_an_upload_that_is_cancelled_gives_back_what_it_had() -> None:
    purse = Purse(10 * LARGE)
    server = ServerConnection(account=purse)
    events_of(server, ask("a", LARGE, attachments=2), announce("0", LARGE), blob(LARGE))
    assert purse.held == 2 * LARGE
    cancel = pack(FrameType.JSON, b'{"op":"cancel","id":"a"}')
    assert len(events_of(server, cancel)) == 1
    assert purse.held == 0
    assert events_of(server, announce("1", LARGE), blob(LARGE)) == []
    assert purse.held == 0


def test_a_large_message_without_room_in_the_midst_of_an_upload_ends_the_connection() -> None:
    purse = Purse(LARGE)
    server = ServerConnection(account=purse)
    events_of(server, ask("a", LARGE, attachments=1))
    refused = refusal_in(events_of(server, ask("b", LARGE)))
    assert (refused.close, refused.code) == (True, ErrorCode.QUEUE_FULL)


def test_a_large_message_without_room_whose_id_is_not_found_ends_the_connection() -> None:
    server = ServerConnection(account=Purse(0))
    refused = refusal_in(events_of(server, message(LARGE, messages=[], id="a")))
    assert (refused.id, refused.close, refused.code) == ("", True, ErrorCode.QUEUE_FULL)


def test_a_connection_goes_with_its_last_owner_and_its_bytes_with_its_end() -> None:
    gc.disable()
    try:
        server = ServerConnection(account=Purse(LARGE))
        events_of(server, ask("a", LARGE)[:-1])
        reader = server._reader
        assert reader.buffered_bytes > LARGE - 10
        server.close()
        assert reader.buffered_bytes == 0
        assert events_of(server, ask("b", 300)) == []
        watched = weakref.ref(server)
        del server, reader
        assert watched() is None
    finally:
        gc.enable()
