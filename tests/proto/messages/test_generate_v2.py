"""Every rule of wire.md section 3.2, as the shortest request that breaks it."""

from typing import Any

import msgspec
import pytest

from inferd_proto import (
    MAX_ATTACHMENTS,
    ErrorCode,
    FrameType,
    GenerateV2,
    RemoteProtocolError,
    Text,
    ToolResult,
)
from inferd_proto.messages import decode_request

HI: dict[str, Any] = {"type": "text", "text": "hi"}
TOOL: dict[str, Any] = {"name": "f", "description": "d", "input_schema": {}}
IMAGE: dict[str, Any] = {"kind": "image", "id": "i", "width": 1, "height": 1}
AUDIO: dict[str, Any] = {"kind": "audio", "id": "a", "sample_rate": 16000}
VIDEO: dict[str, Any] = {"kind": "video", "id": "v"}
SCHEMA: dict[str, Any] = {"type": "json_schema", "schema": {"type": "object"}}
CALL: dict[str, Any] = {"type": "tool_use", "tool_call_id": "c", "name": "f", "input": {}}
FRAME_TYPES = pytest.mark.parametrize("frame_type", [FrameType.JSON, FrameType.MSGPACK])


def deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"x": value}


def result(*content: object) -> dict[str, Any]:
    return {"type": "tool_result", "tool_call_id": "c", "content": list(content)}


def said(*blocks: object, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


def decode(frame_type: FrameType, fields: dict[str, Any]) -> GenerateV2:
    message = {"wire_version": 1, "id": "r", **said(HI), **fields}
    encoder = msgspec.json if frame_type is FrameType.JSON else msgspec.msgpack
    request = decode_request(frame_type, encoder.encode(message))
    assert isinstance(request, GenerateV2)
    return request


@FRAME_TYPES
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "`messages`: Expected `array` of length >= 1"),
        ({"messages": None}, "`messages`: is missing"),
        ({"messages": "hi"}, "`messages`: Expected `array`, got `str`"),
        ({"messages": [{"role": "user"}]}, "`messages[0].content`: is missing"),
        ({"messages": [{"content": [HI]}]}, "`messages[0].role`: is missing"),
        (said(), "`messages[0].content`: Expected `array` of length >= 1"),
        (said(HI, role="tool"), "`messages[0].role`: 'tool' is not one of its values"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "`messages[0].content`: Expected"),
        (said(HI, {"type": "text"}), "`messages[0].content[1].text`: is missing"),
        (said({"type": "text", "text": 5}), "`messages[0].content[0].text`: Expected `str`"),
        (said({"text": "x"}), "`messages[0].content[0].type`: is missing"),
        (said({"type": 5}), "`messages[0].content[0].type`: Expected `str`"),
        (said({"type": "smell"}), "`messages[0].content[0]`: unknown type 'smell'"),
        (
            said(result(HI, {"type": "smell"})),
            "`messages[0].content[0].content[1]`: unknown type 'smell'",
        ),
        (said({"type": "image"}), "`messages[0].content[0].attachment_id`: is missing"),
        (
            said({"type": "image", "attachment_id": "i"}),
            "`messages[0].content[0].attachment_id`: there is no attachment 'i'",
        ),
        (
            said(result({"type": "audio", "attachment_id": "i"})) | {"attachments": [IMAGE]},
            "`messages[0].content[0].content[0].attachment_id`: 'i' is of another kind",
        ),
        (said(CALL), "`messages[0].content[0]`: tool_use stands in assistant messages only"),
        (
            said(result(), role="assistant"),
            "`messages[0].content[0]`: tool_result stands in user messages only",
        ),
        (
            said(CALL | {"input": [1]}, role="assistant"),
            "`messages[0].content[0].input`: Expected `object`",
        ),
        (
            said(CALL | {"input": deep(200)}, role="assistant"),
            "`messages[0].content[0].input`: nests deeper than 128 levels",
        ),
        (
            said(CALL | {"name": ""}, role="assistant"),
            "`messages[0].content[0].name`: Expected `str` of length >= 1",
        ),
        ({"attachments": [{"id": "x"}]}, "`attachments[0].kind`: is missing"),
        ({"attachments": [{"kind": "zip", "id": "x"}]}, "`attachments[0]`: unknown type 'zip'"),
        ({"attachments": [VIDEO, VIDEO]}, "`attachments[1].id`: 'v' stands there twice"),
        ({"attachments": [VIDEO | {"id": ""}]}, "`attachments[0].id`: Expected `str` of length"),
        ({"attachments": [IMAGE | {"width": 0}]}, "`attachments[0].width`: Expected `int` >= 1"),
        ({"attachments": [IMAGE | {"height": 2**32}]}, "`attachments[0].height`: Expected `int`"),
        ({"attachments": [AUDIO | {"sample_rate": 0}]}, "`attachments[0].sample_rate`: Expected"),
        (
            {"attachments": [VIDEO | {"id": str(i)} for i in range(MAX_ATTACHMENTS + 1)]},
            "`attachments`: Expected `array` of length <= 32",
        ),
        ({"tools": [TOOL, TOOL]}, "`tools[1].name`: 'f' stands there twice"),
        ({"tools": [TOOL | {"name": ""}]}, "`tools[0].name`: Expected `str` of length >= 1"),
        ({"tools": [{"name": "f"}]}, "`tools[0].input_schema`: is missing"),
        ({"tools": [TOOL | {"input_schema": 5}]}, "`tools[0].input_schema`: Expected `object`"),
        (
            {"tools": [TOOL | {"input_schema": deep(200)}]},
            "`tools[0].input_schema`: nests deeper than 128 levels",
        ),
        ({"tool_choice": "auto"}, "`tool_choice`: needs `tools`"),
        ({"tool_choice": "none"}, "`tool_choice`: needs `tools`"),
        ({"tools": [TOOL], "tool_choice": "f"}, "`tool_choice`: 'f' is not one of its values"),
        (
            {"tools": [TOOL], "tool_choice": "auto", "response_format": SCHEMA},
            "`tool_choice`: excludes `response_format`",
        ),
        ({"response_format": {"type": "xml"}}, "`response_format`: unknown type 'xml'"),
        ({"response_format": {"type": "json_schema"}}, "`response_format.schema`: is missing"),
        (
            {"response_format": SCHEMA | {"schema": deep(200)}},
            "`response_format.schema`: nests deeper than 128 levels",
        ),
        ({"thinking": "yes"}, "`thinking`: Expected `bool"),
        ({"stream": 1}, "`stream`: Expected `bool`, got `int`"),
        ({"temperature": -0.1}, "`temperature`: Expected `float` >= 0"),
        ({"temperature": "hot"}, "`temperature`: Expected `float"),
        ({"top_p": 1.1}, "`top_p`: Expected `float` <= 1"),
        ({"min_p": -0.1}, "`min_p`: Expected `float` >= 0"),
        ({"top_k": -1}, "`top_k`: Expected `int` >= 0"),
        ({"top_k": 1.5}, "`top_k`: Expected `int"),
        ({"seed": -2}, "`seed`: Expected `int` >= -1"),
        ({"max_tokens": 0}, "`max_tokens`: Expected `int` >= 1"),
        ({"max_tokens": 2**64 - 1}, "`max_tokens`: Expected `int` <= 2147483647"),
        ({"stop": [""]}, "`stop[0]`: Expected `str` of length >= 1"),
        ({"stop": "END"}, "`stop`: Expected `array"),
        ({"model": 5}, "`model`: Expected `str"),
        ({"client": "x" * 65}, "`client`: Expected `str` of length <= 64"),
    ],
)
def test_a_broken_rule_is_named_with_its_path(
    frame_type: FrameType, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(frame_type, fields)
    assert caught.value.message.startswith(words)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.request_id == "r"
    assert not caught.value.close


@FRAME_TYPES
@pytest.mark.parametrize(
    "fields",
    [
        said({"type": "text", "text": ""}),
        said(HI, HI, role="system"),
        said(CALL, role="assistant"),
        said(result()),
        said(result(HI, result(HI))),
        said(result({"type": "image", "attachment_id": "i"})) | {"attachments": [IMAGE]},
        said({"type": "video", "attachment_id": "v"}) | {"attachments": [VIDEO]},
        {"attachments": [IMAGE, AUDIO, VIDEO]},
        {"attachments": [VIDEO | {"id": str(i)} for i in range(MAX_ATTACHMENTS)]},
        {"attachments": [IMAGE | {"width": 70_000}]},
        {"tools": [TOOL, TOOL | {"name": "g"}], "tool_choice": "none"},
        {"tools": [TOOL | {"input_schema": deep(120)}]},
        {"tools": [TOOL], "response_format": SCHEMA},
        {"temperature": 0, "top_p": 0, "min_p": 1, "top_k": 0, "seed": -1, "max_tokens": 1},
        {"temperature": 100.5, "seed": 2**32 - 1, "max_tokens": 2**31 - 1},
        {"stop": []},
        {"stop": ["\n", "END"], "thinking": False, "stream": False},
    ],
)
def test_what_no_rule_forbids_is_taken(frame_type: FrameType, fields: dict[str, Any]) -> None:
    decode(frame_type, fields)


def test_what_is_missing_is_left_to_the_backend() -> None:
    request = decode(FrameType.JSON, {})
    left = ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "max_tokens", "model")
    assert [getattr(request, name) for name in left] == [None] * len(left)
    assert request.stream is True
    assert (request.attachments, request.tools, request.tool_choice) == ([], [], None)


def test_blocks_nest_as_they_were_written() -> None:
    (message,) = decode(FrameType.JSON, said(result(HI, result(HI)))).messages
    inner = ToolResult("c", [Text("hi")])
    assert message.content == [ToolResult("c", [Text("hi"), inner])]
