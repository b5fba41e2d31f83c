"""A message of too many values is refused before they are built."""

import tracemalloc
from typing import Any

import msgspec
import pytest

from inferd_proto import FrameType, RemoteProtocolError
from inferd_proto.messages import decode_request
from inferd_proto.messages.limits import MAX_EMBED_INPUTS, MAX_VALUES
from inferd_proto.messages.weight import check_weight

JSON, MSGPACK = FrameType.JSON, FrameType.MSGPACK
BLOCK = b'{"type":"text","text":""}'
TURN = b'{"role":"user","content":""}'


def request(fields: bytes) -> bytes:
    return b'{"wire_version":1,"id":"r",' + fields + b"}"


def listed(item: bytes, times: int) -> bytes:
    return b"[" + b",".join([item] * times) + b"]"


@pytest.mark.parametrize(
    "fields",
    [
        b'"messages":[{"role":"user","content":' + listed(BLOCK, MAX_VALUES // 4) + b"}]",
        b'"api_version":1,"messages":' + listed(TURN, MAX_VALUES // 4),
        b'"op":"embed","input":' + listed(b'"a"', MAX_VALUES),
        b'"op":"rerank","query":"q","documents":' + listed(b'"a"', MAX_VALUES),
        b'"op":"embed","input":["a"],"ignored":' + listed(b'""', MAX_VALUES),
        b'"op":"embed","input":["a"],"ignored":' + listed(rb'"\\"', MAX_VALUES),
        b'"op":"embed","input":["a"],"ignored":' + listed(rb'"\"\\"', MAX_VALUES),
    ],
)
def test_too_many_values_are_refused_without_being_built(fields: bytes) -> None:
    data = request(fields)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="more than 400000 texts") as caught:
            decode_request(JSON, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (caught.value.request_id, caught.value.close) == ("r", False)
    assert peak < 2 * len(data)


@pytest.mark.parametrize("text", [r"\"", r"\\\"", "{},[]", r"\\", "\\u0022"])
def test_what_stands_in_one_text_is_not_counted(text: str) -> None:
    content = b'"content":[{"type":"text","text":"' + (text * MAX_VALUES * 2).encode() + b'"}]'
    decode_request(JSON, request(b'"messages":[{"role":"user",' + content + b"}]"))


@pytest.mark.parametrize("times", [MAX_VALUES, MAX_VALUES + 1])
def test_the_cap_is_exact_in_json(times: int) -> None:
    for item in (b'"x"', rb'"\\"', rb'"\""'):
        data = listed(item, times)
        if times > MAX_VALUES:
            with pytest.raises(RemoteProtocolError):
                check_weight(JSON, data)
        else:
            check_weight(JSON, data)


VALUES: list[Any] = [
    *[None, True, 0, -1, 200, -100, 2**15, -(2**14), 2**31, -(2**30), 2**62, -(2**62), 1.5],
    *["", "a" * 31, "a" * 255, "a" * 65_535, "a" * 65_536, b"", b"a" * 256, b"a" * 65_536],
    *[{}, {"a": {"b": [1, "x"]}}, [[]], list(range(16)), list(range(65_536))],
    *[msgspec.msgpack.Ext(1, b"a" * size) for size in (1, 2, 4, 8, 16, 3, 300, 65_536)],
]


def values_in(value: object) -> int:
    match value:
        case dict():
            return 1 + sum(1 + values_in(inner) for inner in value.values())
        case list():
            return 1 + sum(map(values_in, value))
        case _:
            return 1


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_the_cap_is_exact_in_msgpack(value: object) -> None:
    rest = MAX_VALUES - 1 - 2 * values_in(value)
    at_the_cap = [value, *[1.5] * rest, value]
    check_weight(MSGPACK, msgspec.msgpack.encode(at_the_cap))
    with pytest.raises(RemoteProtocolError, match="more than 400000"):
        check_weight(MSGPACK, msgspec.msgpack.encode([*at_the_cap, 1.5]))


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode])
def test_inputs_of_an_embed(encode: Any) -> None:  # noqa: ANN401  an encoder
    kind = JSON if encode is msgspec.json.encode else MSGPACK
    asked = {"wire_version": 1, "op": "embed", "input": ["a"] * MAX_EMBED_INPUTS}
    decode_request(kind, encode(asked))
    asked["input"] = ["a"] * (MAX_EMBED_INPUTS + 1)
    with pytest.raises(RemoteProtocolError, match=r"^`input`: .* <= 65536"):
        decode_request(kind, encode(asked))


def test_empty_messages_are_not_built_to_be_weighed() -> None:
    data = request(b'"messages":' + listed(b"{}", 3_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=r"^`messages\[0\].role`: is missing"):
            decode_request(JSON, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
