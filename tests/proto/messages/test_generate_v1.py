"""Every rule of wire.md section 3.1."""

from typing import Any

import msgspec
import pytest

from inferd_proto import FrameType, GenerateV1, RemoteProtocolError, TextMessage
from inferd_proto.messages import decode_request

HI: dict[str, Any] = {"role": "user", "content": "hi"}


def decode(fields: dict[str, Any]) -> GenerateV1:
    message = {"wire_version": 1, "api_version": 1, "messages": [HI], **fields}
    request = decode_request(FrameType.JSON, msgspec.json.encode(message))
    assert isinstance(request, GenerateV1)
    return request


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "`messages`: Expected `array` of length >= 1"),
        ({"messages": [HI, HI | {"role": "tool"}]}, "`messages[1].role`: 'tool' is not one of"),
        ({"messages": [HI | {"content": [HI]}]}, "`messages[0].content`: Expected `str`"),
        ({"temperature": -1}, "`temperature`: Expected `float` >= 0"),
        ({"top_p": 2}, "`top_p`: Expected `float` <= 1"),
        ({"top_k": -1}, "`top_k`: Expected `int` >= 0"),
        ({"max_tokens": 0}, "`max_tokens`: Expected `int` >= 1"),
        ({"stream": "no"}, "`stream`: Expected `bool`"),
        ({"grammar": "x" * (64 * 1024 + 1)}, "`grammar`: is over 65536 bytes"),
        ({"grammar": "ü" * (32 * 1024 + 1)}, "`grammar`: is over 65536 bytes"),
        ({"grammar": "|" * 4097}, "`grammar`: has over 4096 `|`"),
        ({"image_token_budget": 100}, "`image_token_budget`: Invalid enum value 100"),
        ({"model": []}, "`model`: Expected `str"),
    ],
)
def test_a_broken_rule_is_named_with_its_path(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(fields)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [HI | {"content": ""}]},
        {"messages": [HI | {"role": role} for role in ("system", "user", "assistant")]},
        {"grammar": "x" * (64 * 1024)},
        {"grammar": "|" * 4096},
        {"tools": "a field of v2, unknown here"},
        *({"image_token_budget": budget} for budget in (70, 140, 280, 560, 1120)),
    ],
)
def test_what_no_rule_forbids_is_taken(fields: dict[str, Any]) -> None:
    decode(fields)


def test_the_defaults_are_those_of_the_wire() -> None:
    assert decode({}) == GenerateV1(
        id="",
        messages=[TextMessage("user", "hi")],
        temperature=1.0,
        top_p=0.95,
        top_k=64,
        max_tokens=1000,
        stream=True,
        grammar=None,
        image_token_budget=None,
        model=None,
    )


def test_an_empty_grammar_is_none() -> None:
    assert decode({"grammar": ""}).grammar is None
