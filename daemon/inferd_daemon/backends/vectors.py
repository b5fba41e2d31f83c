"""Embeddings and rerank of OpenAI-compatible servers: bodies out, results in.

Pure. A result that is not whole (a vector or a score missing) is a fault, never patched; what is
wrong beside it costs nothing.
"""

import msgspec
from msgspec import Raw, Struct

from inferd_proto import ErrorCode, JsonObject

from ..errors import CallerFault, RequestError, UpstreamFault
from .base import EmbedRequest, EmbedResult, RerankRequest, RerankResult
from .chat_completions import Dialect

MAX_COUNT = 2**53
"""Beyond it is no count of tokens, and a frame could not carry it."""
_NOTHING = Raw(b"null")

_encode = msgspec.json.Encoder().encode


class _Usage(Struct):
    prompt_tokens: float | None = None
    total_tokens: float | None = None


class _Vector(Struct):
    embedding: list[float]
    index: int = 0


class _Embeddings(Struct):
    data: list[_Vector]
    model: Raw = _NOTHING
    usage: Raw = _NOTHING


class _Score(Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _Ranking(Struct):
    results: list[_Score]
    model: Raw = _NOTHING
    usage: Raw = _NOTHING


_decode_embeddings = msgspec.json.Decoder(_Embeddings).decode
_decode_ranking = msgspec.json.Decoder(_Ranking).decode
_decode_name = msgspec.json.Decoder(str).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def embed_body(request: EmbedRequest, dialect: Dialect, model: str | None) -> bytes:
    """The body of `POST /v1/embeddings`."""
    body: JsonObject = {"input": request.input, "encoding_format": "float"}
    if model is not None:
        body["model"] = model
    if request.dimensions is not None and dialect.dimensions:
        body["dimensions"] = request.dimensions
    return _encode(body)


def read_embeddings(body: bytes, request: EmbedRequest, model: str | None) -> EmbedResult:
    """Raises UpstreamFault where vectors are missing, CallerFault where their size is not asked."""
    try:
        answer = _decode_embeddings(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise UpstreamFault("upstream answered embeddings that cannot be read") from None
    vectors = {vector.index: vector.embedding for vector in answer.data}
    if sorted(vectors) != list(range(len(request.input))) or len(answer.data) != len(vectors):
        raise UpstreamFault("upstream did not answer one embedding for each input")
    sizes = {len(vector) for vector in vectors.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise UpstreamFault("upstream answered embeddings of different sizes")
    size = sizes.pop()
    if request.dimensions not in (None, size):
        raise CallerFault(f"`dimensions`: this model makes {size}, not {request.dimensions}")
    return EmbedResult(
        [vectors[index] for index in range(len(vectors))],
        _name(answer.model) or model or "",
        _input_tokens(answer.usage),
    )


def rerank_body(request: RerankRequest, model: str | None) -> bytes:
    """The body of `POST /v1/rerank`; asks for every score."""
    body: JsonObject = {
        "query": request.query,
        "documents": request.documents,
        "top_n": len(request.documents),
    }
    if model is not None:
        body["model"] = model
    return _encode(body)


def read_ranking(body: bytes, request: RerankRequest, model: str | None) -> RerankResult:
    """Raises UpstreamFault where a score is missing, or there is one more than was asked for."""
    try:
        answer = _decode_ranking(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise UpstreamFault("upstream answered a ranking that cannot be read") from None
    scores: dict[int, float] = {}
    for result in answer.results:
        score = result.relevance_score if result.relevance_score is not None else result.score
        if score is not None:
            scores[result.index] = score
    count = len(request.documents)
    if sorted(scores) != list(range(count)) or len(answer.results) != count:
        raise UpstreamFault("upstream did not answer one score for each document")
    return RerankResult(
        [scores[index] for index in range(len(scores))],
        _name(answer.model) or model or "",
        _input_tokens(answer.usage),
    )


def _name(told: Raw) -> str:
    try:
        return _decode_name(told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _input_tokens(told: Raw) -> int:
    """Servers that rerank often give the total alone."""
    try:
        usage = _decode_usage(told)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return 0
    for count in (usage.prompt_tokens, usage.total_tokens):
        if count is not None and 0 < count <= MAX_COUNT:
            return int(count)
    return 0


def unsupported(code: ErrorCode, what: str) -> RequestError:
    """The upstream has no such endpoint: nobody's fault, and it will not change by waiting."""
    return RequestError(code, f"this upstream does not {what}")
