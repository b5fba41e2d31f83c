"""What every request shares: the version first, then id and op, in both encodings."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_proto import (
    Cancel,
    Control,
    Embed,
    ErrorCode,
    FrameType,
    GenerateV1,
    GenerateV2,
    RemoteProtocolError,
)
from inferd_proto.codec import MAX_REASON_CHARS
from inferd_proto.messages import decode_request

V2: dict[str, Any] = {
    "wire_version": 1,
    "id": "r",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
}
V1: dict[str, Any] = {
    "wire_version": 1,
    "api_version": 1,
    "messages": [{"role": "user", "content": "hi"}],
}
BOTH = pytest.mark.parametrize("frame_type", [FrameType.JSON, FrameType.MSGPACK])


def payload(frame_type: FrameType, message: object) -> bytes:
    if frame_type is FrameType.JSON:
        return msgspec.json.encode(message)
    return msgspec.msgpack.encode(message)


def refuse(frame_type: FrameType, data: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_request(frame_type, data)
    return caught.value


@BOTH
@pytest.mark.parametrize(
    ("fields", "type_"),
    [
        (V2, GenerateV2),
        (V2 | {"op": "generate", "api_version": 2}, GenerateV2),
        (V2 | {"op": None, "api_version": None}, GenerateV2),
        (V1, GenerateV1),
        ({"wire_version": 1, "op": "embed", "input": ["a"]}, Embed),
        ({"wire_version": 1, "op": "cancel", "id": "r"}, Cancel),
        ({"op": "cancel", "id": "r"}, Cancel),
        ({"wire_version": 1, "op": "lease.ensure"}, Control),
    ],
)
def test_op_and_api_version_choose_the_message(
    frame_type: FrameType, fields: dict[str, Any], type_: type
) -> None:
    assert type(decode_request(frame_type, payload(frame_type, fields))) is type_


@BOTH
@pytest.mark.parametrize(
    ("version", "words"),
    [
        (0, "wire_version 0 is not supported"),
        (2, "wire_version 2 is not supported"),
        (-1, "wire_version -1 is not supported"),
        (1.0, "wire_version 1.0 is not supported"),
        (True, "wire_version is not the number 1"),
        (2**63, "wire_version 9223372036854775808 is not supported"),
        (None, "wire_version is missing"),
        ("1", "wire_version is not the number 1"),
        ([1], "wire_version is not the number 1"),
        ({}, "wire_version is not the number 1"),
        ("x" * 10_000, "wire_version is not the number 1"),
    ],
)
def test_the_version_comes_before_all_else(
    frame_type: FrameType, version: object, words: str
) -> None:
    message = {"wire_version": version, "id": "r", "op": 5, "messages": 5}
    error = refuse(frame_type, payload(frame_type, message))
    assert error.code is ErrorCode.WIRE_VERSION_UNSUPPORTED
    assert error.close
    assert error.request_id == "r"
    assert error.message == f"{words}; this daemon speaks wire_version 1"


def test_a_version_of_any_length_is_refused_in_few_words() -> None:
    for digits in (30, 4_000, 5_000, 1_000_000):
        error = refuse(FrameType.JSON, b'{"wire_version":' + b"9" * digits + b"}")
        assert error.code is ErrorCode.WIRE_VERSION_UNSUPPORTED
        assert len(error.message) < 100


@BOTH
def test_a_cancel_may_leave_the_version_out_but_not_lie(frame_type: FrameType) -> None:
    error = refuse(frame_type, payload(frame_type, {"op": "cancel", "id": "r", "wire_version": 3}))
    assert error.code is ErrorCode.WIRE_VERSION_UNSUPPORTED


@BOTH
@pytest.mark.parametrize("id_", [5, [], {}, True, "x" * 1025, "ü" * 5000])
def test_a_bad_id_is_refused_and_not_echoed(frame_type: FrameType, id_: object) -> None:
    error = refuse(frame_type, payload(frame_type, V2 | {"id": id_}))
    assert error.request_id == ""
    assert error.message == "`id`: must be a string of at most 1024 characters"
    assert not error.close


def test_a_head_of_any_size_is_not_built() -> None:
    data = b'{"wire_version":1,"id":[' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    try:
        refuse(FrameType.JSON, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@BOTH
@pytest.mark.parametrize("id_", ["", "r", "x" * 1024, "\U0001f600" * 1024, '"\\\n'])
def test_an_id_is_any_string_up_to_its_limit(frame_type: FrameType, id_: str) -> None:
    assert decode_request(frame_type, payload(frame_type, V2 | {"id": id_})) == decode_request(
        frame_type, payload(frame_type, {**V2, "later": 1, "id": id_})
    )


def test_an_id_in_escapes_is_as_long_as_what_it_means() -> None:
    data = b'{"wire_version":1,"op":"cancel","id":"' + rb"\u00e9" * 1024 + b'"}'
    assert decode_request(FrameType.JSON, data) == Cancel("é" * 1024)


@BOTH
def test_a_missing_or_null_id_is_empty(frame_type: FrameType) -> None:
    for fields in ({}, {"id": None}):
        message = {"wire_version": 1, "op": "embed", "input": ["a"], **fields}
        assert decode_request(frame_type, payload(frame_type, message)) == Embed(input=["a"])


@BOTH
@pytest.mark.parametrize("op", ["", 5, [], "x" * 65])
def test_a_bad_op_is_refused(frame_type: FrameType, op: object) -> None:
    error = refuse(frame_type, payload(frame_type, V2 | {"op": op}))
    assert error.message == "`op`: must be a string of 1 to 64 characters"
    assert error.request_id == "r"


@BOTH
@pytest.mark.parametrize("version", [0, 3, "2", 1.0, True, []])
def test_an_unknown_api_version_is_refused(frame_type: FrameType, version: object) -> None:
    error = refuse(frame_type, payload(frame_type, V2 | {"api_version": version}))
    assert error.message == "`api_version`: must be 1 or 2"


@BOTH
@pytest.mark.parametrize("fields", [V2, V1])
def test_unknown_fields_are_ignored_wherever_they_stand(
    frame_type: FrameType, fields: dict[str, Any]
) -> None:
    (turn,) = fields["messages"]
    more = fields | {"messages": [turn | {"mood": {"deep": [1]}}], "novelty": [{"a": None}]}
    assert decode_request(frame_type, payload(frame_type, more)) == decode_request(
        frame_type, payload(frame_type, fields)
    )


@BOTH
@pytest.mark.parametrize("fields", [V2, V1])
def test_null_for_an_optional_field_means_that_it_is_missing(
    frame_type: FrameType, fields: dict[str, Any]
) -> None:
    names = ["stream", "temperature", "top_p", "top_k", "max_tokens", "tools", "attachments"]
    more = fields | dict.fromkeys(names)
    assert decode_request(frame_type, payload(frame_type, more)) == decode_request(
        frame_type, payload(frame_type, fields)
    )


@BOTH
def test_null_for_a_required_field_is_not_there(frame_type: FrameType) -> None:
    error = refuse(frame_type, payload(frame_type, V2 | {"messages": None}))
    assert error.message == "`messages`: is missing"
    error = refuse(frame_type, payload(frame_type, V2 | {"stream": None, "top_k": -1}))
    assert error.message.startswith("`top_k`: ")


HOSTILE_JSON = {
    "empty": b"",
    "no object": b"[1]",
    "a string": b'"wire_version"',
    "cut": b'{"wire_version":1',
    "more behind it": b"{} {}",
    "NaN": b'{"wire_version":1,"temperature":NaN,"messages":[]}',
    "Infinity": b'{"wire_version":1,"temperature":-Infinity,"messages":[]}',
    "invalid UTF-8 in text": b'{"wire_version":1,"model":"\xff","messages":[]}',
    "invalid UTF-8 in an ignored field": payload(FrameType.JSON, V2)[:-1] + b',"x":"\xc3\x28"}',
    "invalid UTF-8 in an ignored key": payload(FrameType.JSON, V2)[:-1] + b',"\xed\xa0\x80":1}',
    "UTF-8 cut at its end": payload(FrameType.JSON, V2)[:-1] + b',"x":"\xe2\x82',
    "UTF-16": '{"wire_version":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "lone surrogate": rb'{"wire_version":1,"op":"a.b","x":"\ud800"}',
    "deep arrays": b'{"wire_version":1,"op":"a.b","x":' + b"[" * 100_000,
    "deep objects": b'{"wire_version":1,"op":"a.b","x":' + b'{"a":' * 100_000,
    "deep in an ignored field": payload(FrameType.JSON, V2)[:-1] + b',"x":' + b"[" * 100_000,
    "deep id": b'{"wire_version":1,"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep blocks": b'{"wire_version":1,"messages":[{"role":"user","content":['
    + b'{"type":"tool_result","tool_call_id":"a","content":[' * 50_000,
    "huge number": b'{"wire_version":1,"op":"a.b","x":1e999}',
    "huge integer": b'{"wire_version":1,"op":"a.b","x":' + b"1" * 100_000 + b"}",
    "65 bits": b'{"wire_version":1,"op":"a.b","x":18446744073709551616}',
}
HOSTILE_MSGPACK = {
    "empty": b"",
    "no map": b"\x91\x01",
    "reserved byte": b"\xc1",
    "array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "4 billion in a field": b"\x82\xacwire_version\x01\xa8messages\xdd\xff\xff\xff\xff",
    "4 billion in an ignored field": b"\x82\xacwire_version\x01\xa1x\xdd\xff\xff\xff\xff",
    "string of 2 billion": b"\x82\xacwire_version\x01\xa2id\xdb\x7f\xff\xff\xff",
    "deep": b"\x83\xacwire_version\x01\xa2op\xa3a.b\xa1x" + b"\x91" * 100_000,
    "deep in an ignored field": b"\x82\xacwire_version\x01\xa1x" + b"\x91" * 100_000,
    "key that is no string": b"\x82\xacwire_version\x01\x01\x02",
    "inner key that is no string": payload(
        FrameType.MSGPACK, {"wire_version": 1, "op": "a.b", "x": {1: 2}}
    ),
    "key that cannot be hashed": b"\x83\xacwire_version\x01\xa2op\xa3a.b\xa1x\x81\x81\x01\x02\x03",
    "bytes": payload(FrameType.MSGPACK, {"wire_version": 1, "op": "a.b", "x": b"raw"}),
    "extension": b"\x83\xacwire_version\x01\xa2op\xa3a.b\xa1x\xd4\x05\x00",
    "timestamp": b"\x83\xacwire_version\x01\xa2op\xa3a.b\xa1x\xd6\xff\x00\x00\x00\x01",
    "bad timestamp": b"\x83\xacwire_version\x01\xa2op\xa3a.b\xa1x\xd7\xff" + b"\xff" * 8,
    "NaN": payload(FrameType.MSGPACK, V2 | {"top_p": float("nan")}),
    "infinity": payload(FrameType.MSGPACK, V2 | {"temperature": float("inf")}),
    "NaN inside": payload(FrameType.MSGPACK, {"wire_version": 1, "op": "a.b", "x": [float("nan")]}),
    "invalid UTF-8": b"\x82\xacwire_version\x01\xa2id\xa1\xff",
    "surrogate": b"\x83\xacwire_version\x01\xa2op\xa3a.b\xa1x\xa3\xed\xa0\x80",
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_an_invalid_request(name: str) -> None:
    error = refuse(FrameType.JSON, HOSTILE_JSON[name])
    assert error.code is ErrorCode.INVALID_REQUEST
    assert not error.close
    assert len(error.message) < MAX_REASON_CHARS + 100


@pytest.mark.parametrize("name", HOSTILE_MSGPACK)
def test_hostile_msgpack_is_an_invalid_request(name: str) -> None:
    error = refuse(FrameType.MSGPACK, HOSTILE_MSGPACK[name])
    assert error.code is ErrorCode.INVALID_REQUEST
    assert not error.close
    assert len(error.message) < MAX_REASON_CHARS + 100


PROMPTS = pytest.mark.parametrize("prompt", ["a secret prompt", "secret" * 2000, "secret\n"])


@BOTH
@PROMPTS
@pytest.mark.parametrize(
    "fields_of",
    [
        lambda text: {"messages": [{"role": text, "content": [{"type": "text", "text": "x"}]}]},
        lambda text: {"messages": [{"role": "user", "content": [{"type": text}]}]},
        lambda text: {
            "messages": [{"role": "user", "content": [{"type": "image", "attachment_id": text}]}]
        },
        lambda text: {"messages": text},
        lambda text: {"messages": [text]},
        lambda text: {"attachments": [{"kind": text, "id": "a"}]},
        lambda text: {
            "attachments": [{"kind": "video", "id": text}, {"kind": "video", "id": text}]
        },
        lambda text: {
            "tools": [{"name": text, "input_schema": {}}, {"name": text, "input_schema": {}}]
        },
        lambda text: {"tool_choice": text},
        lambda text: {"response_format": {"type": text}},
        lambda text: {"op": text * 200},
        lambda text: {"api_version": 1, "image_token_budget": text},
        lambda text: {"api_version": text},
        lambda text: {"id": text * 200},
        lambda text: {"wire_version": text},
    ],
)
def test_an_error_never_repeats_what_may_be_a_prompt(
    frame_type: FrameType, prompt: str, fields_of: Callable[[str], dict[str, Any]]
) -> None:
    error = refuse(frame_type, payload(frame_type, V2 | fields_of(prompt)))
    assert "secret" not in error.message
    assert len(error.message) < 200


def test_an_error_repeats_what_looks_like_a_name() -> None:
    error = refuse(FrameType.JSON, payload(FrameType.JSON, V2 | {"tool_choice": "any"}))
    assert error.message == "`tool_choice`: 'any' is not one of its values"


@given(
    st.sampled_from([FrameType.JSON, FrameType.MSGPACK]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from(["", "generate", "embed", "rerank", "a.b", "cancel"]),
    st.sampled_from(
        ["id", "messages", "attachments", "tools", "input", "documents", "stop", "any", "type"]
    ),
)
def test_any_value_in_any_field_is_a_message_or_a_typed_error(
    frame_type: FrameType, value: object, op: str, field: str
) -> None:
    message = V2 | ({"op": op} if op else {}) | {field: value}
    error = fault(frame_type, payload(frame_type, message))
    if error is not None:
        assert error.code is ErrorCode.INVALID_REQUEST
        assert len(error.message) < MAX_REASON_CHARS + 100


@given(st.sampled_from([FrameType.JSON, FrameType.MSGPACK]), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_typed_error(frame_type: FrameType, data: bytes) -> None:
    error = fault(frame_type, data)
    if error is not None:
        assert error.code in (ErrorCode.INVALID_REQUEST, ErrorCode.WIRE_VERSION_UNSUPPORTED)


def fault(frame_type: FrameType, data: bytes) -> RemoteProtocolError | None:
    try:
        decode_request(frame_type, data)
    except RemoteProtocolError as error:
        return error
    return None
