"""Every rule of wire.md section 5."""

from typing import Any

import msgspec
import pytest

from inferd_proto import Embed, FrameType, RemoteProtocolError, Rerank
from inferd_proto.messages import decode_request

MEBIBYTE = 1024 * 1024


def decode(fields: dict[str, Any]) -> object:
    return decode_request(FrameType.JSON, msgspec.json.encode({"wire_version": 1, **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"op": "embed"}, "`input`: is missing"),
        ({"op": "embed", "input": []}, "`input`: Expected `array` of length >= 1"),
        ({"op": "embed", "input": "one"}, "`input`: Expected `array`"),
        ({"op": "embed", "input": ["a", ""]}, "`input[1]`: Expected `str` of length >= 1"),
        ({"op": "embed", "input": ["a"], "dimensions": 0}, "`dimensions`: Expected `int` >= 1"),
        ({"op": "embed", "input": ["a"], "task": "x"}, "`task`: 'x' is not one of its values"),
        ({"op": "rerank", "documents": ["a"]}, "`query`: is missing"),
        ({"op": "rerank", "query": "", "documents": ["a"]}, "`query`: Expected `str` of length"),
        ({"op": "rerank", "query": "q", "documents": []}, "`documents`: Expected `array` of"),
        ({"op": "rerank", "query": "q", "documents": ["a", ""]}, "`documents[1]`: Expected"),
        ({"op": "rerank", "query": "q", "documents": ["a"] * 257}, "`documents`: Expected `array`"),
        ({"op": "rerank", "query": "q", "documents": ["a"], "top_n": 0}, "`top_n`: Expected"),
        (
            {"op": "rerank", "query": "q", "documents": ["ü" * MEBIBYTE] * 4},
            "`documents`: 8388609 bytes of text are over the cap of 8388608",
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_path(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(fields)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    "task",
    [
        "retrieval_query",
        "retrieval_document",
        "similarity",
        "classification",
        "clustering",
        "question_answering",
        "fact_verification",
        "code_retrieval_query",
    ],
)
def test_every_task_is_known(task: str) -> None:
    request = decode({"op": "embed", "input": ["a"], "task": task})
    assert isinstance(request, Embed)
    assert request.task == task


@pytest.mark.parametrize(
    "fields",
    [
        {"documents": ["a"] * 256},
        {"documents": ["a"], "top_n": 1000},
        {"documents": ["a" * MEBIBYTE] * 7 + ["a" * (MEBIBYTE - 1)]},
    ],
)
def test_the_limits_of_rerank_are_allowed(fields: dict[str, Any]) -> None:
    assert isinstance(decode({"op": "rerank", "query": "q", **fields}), Rerank)
