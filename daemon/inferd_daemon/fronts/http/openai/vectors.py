"""`POST /v1/embeddings` and `/v1/rerank`: bodies to the daemon's requests, results to bodies.

Pure. Rerank has the shape of Jina and llama-server. Vectors in base64 are float32, little-endian.
"""

import sys
from array import array
from base64 import b64encode
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from inferd_proto import Codec, JsonObject

from ....backends.base import EmbedRequest, EmbedResult, RerankRequest, RerankResult
from .json_body import FieldFault, decode_body

MAX_INPUTS = 65_536
MAX_DOCUMENTS = 256
MAX_RERANK_BYTES = 8 * 1024 * 1024

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Encoding = Literal["float", "base64"]


class EmbedAsked(Struct, frozen=True):
    """What came: the daemon's request, and how the answer is to be written."""

    request: EmbedRequest
    model: str | None
    encoding: Encoding


class RerankAsked(Struct, frozen=True):
    """What came; `texts` are to be repeated in the answer where it is not None."""

    request: RerankRequest
    model: str | None
    top_n: int | None
    texts: list[str] | None


class _EmbedBody(Struct):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Encoding | None = None
    dimensions: Count | None = None


class _Document(Struct):
    text: str


class _RerankBody(Struct):
    query: str
    documents: list[str | _Document]
    model: str | None = None
    top_n: Count | None = None
    return_documents: bool | None = None


_EMBED: Codec[_EmbedBody] = Codec(_EmbedBody)
_RERANK: Codec[_RerankBody] = Codec(_RerankBody)
_encode = msgspec.json.Encoder().encode


def parse_embed(body: bytes) -> EmbedAsked:
    """Raises FieldFault."""
    asked = decode_body(_EMBED, body)
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given):
        raise FieldFault("input", "arrays of tokens are not taken; give the text itself")
    if not texts or len(texts) > MAX_INPUTS:
        raise FieldFault("input", f"must hold 1 to {MAX_INPUTS} texts")
    if not all(texts):
        raise FieldFault(f"input[{texts.index('')}]", "must not be empty")
    request = EmbedRequest(texts, asked.dimensions)
    return EmbedAsked(request, asked.model or None, asked.encoding_format or "float")


def embed_answer(result: EmbedResult, encoding: Encoding) -> bytes:
    """Takes long for many vectors."""
    encode = _packed if encoding == "base64" else _unchanged
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(result.embeddings)
    ]
    return _encode(
        {
            "object": "list",
            "data": data,
            "model": result.model,
            "usage": _usage(result.input_tokens),
        }
    )


def parse_rerank(body: bytes) -> RerankAsked:
    """Raises FieldFault."""
    asked = decode_body(_RERANK, body)
    texts = [one if isinstance(one, str) else one.text for one in asked.documents]
    if not texts or len(texts) > MAX_DOCUMENTS:
        raise FieldFault("documents", f"must hold 1 to {MAX_DOCUMENTS} texts")
    if not all(texts):
        raise FieldFault(f"documents[{texts.index('')}]", "must not be empty")
    if not asked.query:
        raise FieldFault("query", "must not be empty")
    if sum(len(text.encode()) for text in texts) + len(asked.query.encode()) > MAX_RERANK_BYTES:
        raise FieldFault("documents", f"are over the cap of {MAX_RERANK_BYTES} bytes of text")
    return RerankAsked(
        RerankRequest(asked.query, texts),
        asked.model or None,
        asked.top_n,
        texts if asked.return_documents else None,
    )


def rerank_answer(result: RerankResult, asked: RerankAsked) -> bytes:
    """Best first; equal scores keep their order."""
    ranked = sorted(enumerate(result.scores), key=lambda pair: -pair[1])[: asked.top_n]
    results: list[JsonObject] = []
    for index, score in ranked:
        entry: JsonObject = {"index": index, "relevance_score": score}
        if asked.texts is not None:
            entry["document"] = {"text": asked.texts[index]}
        results.append(entry)
    return _encode(
        {
            "object": "list",
            "model": result.model,
            "results": results,
            "usage": _usage(result.input_tokens),
        }
    )


def _usage(tokens: int) -> JsonObject:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _unchanged(vector: list[float]) -> list[float]:
    return vector


def _packed(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
