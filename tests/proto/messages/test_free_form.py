"""Free-form JSON is weighed before it is built."""

import tracemalloc

import msgspec
import pytest

from inferd_proto import FrameType, RemoteProtocolError
from inferd_proto.messages import decode_request
from inferd_proto.messages.limits import MAX_JSON_BYTES

MANY = b"[" + b"[]," * (MAX_JSON_BYTES // 3) + b"[]]"
HALF = b'{"x":"' + b"a" * (MAX_JSON_BYTES // 2) + b'"}'
TURN = b'{"role":"user","content":[{"type":"text","text":"hi"}]}'
CALL = (
    b'{"role":"assistant","content":[{"type":"tool_use","tool_call_id":"c","name":"f","input":%s}]}'
)
RESULT = b'{"role":"user","content":[{"type":"tool_result","tool_call_id":"c","content":[%s]}]}'


def message(messages: bytes = TURN, more: bytes = b"") -> bytes:
    return b'{"wire_version":1,"id":"r","messages":[' + messages + b"]" + more + b"}"


@pytest.mark.parametrize(
    "data",
    [
        b'{"wire_version":1,"id":"r","op":"a.b","x":' + MANY + b"}",
        message(CALL % (b'{"x":' + MANY + b"}")),
        message(RESULT % (b'{"type":"text","text":"x","input":' + MANY + b"}")),
        message(more=b',"response_format":{"type":"json_schema","schema":{"x":' + MANY + b"}}"),
        message(more=b',"tools":[{"name":"f","input_schema":{"x":' + MANY + b"}}]"),
        message(CALL % HALF + b"," + CALL % HALF),
        message(CALL % HALF, b',"tools":[{"name":"f","input_schema":' + HALF + b"}]"),
    ],
)
def test_too_much_is_refused_without_being_built(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="over the cap of 4194304") as caught:
            decode_request(FrameType.JSON, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.request_id == "r"
    assert peak < 256 * 1024


def test_too_much_is_refused_in_msgpack_too() -> None:
    arguments = {"wire_version": 1, "op": "a.b", "x": "a" * MAX_JSON_BYTES}
    with pytest.raises(RemoteProtocolError, match="over the cap"):
        decode_request(FrameType.MSGPACK, msgspec.msgpack.encode(arguments))


@pytest.mark.parametrize(
    "data",
    [
        message(CALL % HALF),
        message(RESULT % (b'{"type":"text","text":"' + b"a" * (2 * MAX_JSON_BYTES) + b'"}')),
        message(more=b',"tools":null,"response_format":null,"ignored":' + MANY),
        message(TURN.replace(b"hi", b"a" * (2 * MAX_JSON_BYTES))),
    ],
)
def test_what_is_not_free_form_has_no_such_cap(data: bytes) -> None:
    decode_request(FrameType.JSON, data)


def test_a_long_message_of_another_shape_is_named_with_its_path() -> None:
    data = message(b'{"role":"user","content":"' + b"a" * (MAX_JSON_BYTES + 1) + b'"}')
    with pytest.raises(RemoteProtocolError, match=r"^`messages\[0\].content`: Expected `array`"):
        decode_request(FrameType.JSON, data)
