"""The id of a request, from its first bytes."""

from typing import Any

import msgspec
import pytest

from inferd_proto import FrameType, GenerateV2, Message, Text
from inferd_proto.client_connection import ClientConnection
from inferd_proto.messages.early_id import find_id
from inferd_proto.messages.limits import MAX_ID_CHARS

BOTH = [(FrameType.JSON, msgspec.json.encode), (FrameType.MSGPACK, msgspec.msgpack.encode)]
LONG = {"text": "x" * 3000}


@pytest.mark.parametrize(("kind", "encode"), BOTH)
@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"id": "a", **LONG}, "a"),
        (
            {"stream": True, "seed": -5, "top_p": 0.25, "id": 'ä"\\', **LONG},
            'ä"\\',
        ),
        ({"model": 'x","id":"no"', "none": None, "id": "yes", **LONG}, "yes"),
        ({"id": "x" * MAX_ID_CHARS, **LONG}, "x" * MAX_ID_CHARS),
        ({"id": "x" * (MAX_ID_CHARS + 1), **LONG}, None),
        ({"id": 7, **LONG}, None),
        ({"tool": {"id": "no"}, "id": "late"}, None),
        ({"list": ["x"], "id": "late"}, None),
        ({**LONG, "id": "late"}, None),
        ({}, None),
    ],
)
def test_it_is_found_where_it_stands_first(
    kind: FrameType,
    encode: Any,  # noqa: ANN401  an encoder
    fields: dict[str, object],
    found: str | None,
) -> None:
    assert find_id(kind, encode(fields)[:2048]) == found


@pytest.mark.parametrize(("kind", "_encode"), BOTH)
def test_it_is_found_in_what_our_own_client_writes(kind: FrameType, _encode: object) -> None:
    client = ClientConnection(encoding=kind)
    request = GenerateV2(id="mine", messages=[Message("user", [Text("x" * 5000)])])
    (data,) = client.send_request(request)
    assert find_id(kind, data[3:2000]) == "mine"


@pytest.mark.parametrize(("kind", "encode"), BOTH)
def test_any_cut_of_any_head_is_none_or_the_id(kind: FrameType, encode: Any) -> None:  # noqa: ANN401
    whole = encode({"wire_version": 1, "model": "m", "id": "the id", "x": 1})
    for end in range(len(whole)):
        assert find_id(kind, whole[:end]) in (None, "the id")
    for junk in (
        b"",
        b"\xff" * 50,
        b"[" * 50,
        b"\x81" * 50,
        b'{"id":"\xff"',
        b"\x81\xa2id\xa1\xff",
    ):
        assert find_id(kind, junk) is None
    assert find_id(kind, b"\x81\xa2id\xa1\xff") is None
