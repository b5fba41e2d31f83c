"""Embeddings and rerank: bodies in, results out."""

import json
import struct
from base64 import b64decode
from typing import Any

import pytest

from inferd_daemon.backends.base import EmbedRequest, EmbedResult, RerankRequest, RerankResult
from inferd_daemon.fronts.http.openai.json_body import FieldFault
from inferd_daemon.fronts.http.openai.vectors import (
    embed_answer,
    parse_embed,
    parse_rerank,
    rerank_answer,
)


@pytest.mark.parametrize(
    ("fields", "request_", "encoding"),
    [
        ({"input": "a"}, EmbedRequest(["a"]), "float"),
        ({"input": ["a", "b"]}, EmbedRequest(["a", "b"]), "float"),
        ({"input": "a", "encoding_format": "base64"}, EmbedRequest(["a"]), "base64"),
        ({"input": "a", "encoding_format": None}, EmbedRequest(["a"]), "float"),
        ({"input": "a", "dimensions": 8, "user": "u"}, EmbedRequest(["a"], 8), "float"),
    ],
)
def test_embed_body(fields: dict[str, object], request_: EmbedRequest, encoding: str) -> None:
    """One text or several; vectors as numbers or packed."""
    asked = parse_embed(json.dumps({"model": "m", **fields}).encode())
    assert (asked.request, asked.encoding, asked.model) == (request_, encoding, "m")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 65_537}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_embed_body_refused(fields: dict[str, object], param: str) -> None:
    """By the field that is at fault."""
    with pytest.raises(FieldFault) as caught:
        parse_embed(json.dumps(fields).encode())
    assert caught.value.param == param


def test_embed_answer_as_numbers_and_packed() -> None:
    """The same vectors; packed ones are float32, little-endian."""
    result = EmbedResult([[0.5, -1.0], [0.25, 2.0]], "m", 7)
    numbers = json.loads(embed_answer(result, "float"))
    assert numbers["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [(one["object"], one["index"]) for one in numbers["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert [one["embedding"] for one in numbers["data"]] == result.embeddings
    packed = json.loads(embed_answer(result, "base64"))
    unpacked = [list(struct.unpack("<2f", b64decode(one["embedding"]))) for one in packed["data"]]
    assert unpacked == result.embeddings


def rerank_body(**fields: object) -> bytes:
    """Three documents to rank."""
    return json.dumps({"query": "q", "documents": ["a", {"text": "b"}, "c"], **fields}).encode()


def test_rerank() -> None:
    """Best first, cut to the number that was asked for; texts only where they were wanted."""
    asked = parse_rerank(rerank_body(top_n=2))
    assert asked.request == RerankRequest("q", ["a", "b", "c"])
    result = RerankResult([0.5, -2.0, 0.5], "m", 9)
    ranked: Any = json.loads(rerank_answer(result, asked))
    assert ranked["results"] == [
        {"index": 0, "relevance_score": 0.5},
        {"index": 2, "relevance_score": 0.5},
    ]
    assert ranked["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    with_texts = parse_rerank(rerank_body(return_documents=True))
    ranked = json.loads(rerank_answer(result, with_texts))
    assert [one["document"]["text"] for one in ranked["results"]] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": 1}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": [{"title": "x"}]}, "documents[0].text"),
        ({"documents": ["a"] * 257}, "documents"),
        ({"documents": ["x" * (8 * 1024 * 1024)]}, "documents"),
        ({"top_n": 0}, "top_n"),
    ],
)
def test_rerank_body_refused(fields: dict[str, object], param: str) -> None:
    """By the field that is at fault."""
    with pytest.raises(FieldFault) as caught:
        parse_rerank(rerank_body(**fields))
    assert caught.value.param == param
