"""Embeddings and rankings: whole, in order, or a fault."""

import json

import pytest

from inferd_daemon.backends.base import EmbedRequest, RerankRequest
from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.backends.vectors import embed_body, read_embeddings, read_ranking, rerank_body
from inferd_daemon.config import UpstreamKind
from inferd_daemon.errors import BackendFault, CallerFault

TWO = EmbedRequest(["a", "b"])
PAIR = RerankRequest("q", ["a", "b"])


def embeddings(*vectors: tuple[int, list[float]]) -> bytes:
    data = [{"index": index, "embedding": vector} for index, vector in vectors]
    return json.dumps({"data": data}).encode()


def ranking(*scores: dict[str, float]) -> bytes:
    return json.dumps({"results": list(scores)}).encode()


@pytest.mark.parametrize(("upstream", "sent"), [("openai", True), ("llama_server", False)])
def test_dimensions_go_only_where_they_work(upstream: UpstreamKind, sent: bool) -> None:
    body = json.loads(embed_body(EmbedRequest(["a"], dimensions=2), DIALECTS[upstream], None))
    assert ("dimensions" in body) == sent
    assert "model" not in body


def test_embeddings_in_the_order_of_the_inputs() -> None:
    result = read_embeddings(embeddings((1, [3.0]), (0, [1.0])), TWO, "m")
    assert result.embeddings == [[1.0], [3.0]]
    assert (result.model, result.input_tokens) == ("m", 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        embeddings(),
        embeddings((0, [1.0])),
        embeddings((0, [1.0]), (0, [2.0])),
        embeddings((0, [1.0]), (2, [2.0])),
        embeddings((0, [1.0]), (1, [2.0]), (1, [2.0])),
        embeddings((0, [1.0]), (1, [2.0, 3.0])),
        embeddings((0, []), (1, [])),
        b'{"data":[{"index":0,"embedding":"AAAA"},{"index":1,"embedding":"AAAA"}]}',
    ],
)
def test_embeddings_that_are_not_whole(body: bytes) -> None:
    with pytest.raises(BackendFault):
        read_embeddings(body, TWO, None)


SIDE_FIELDS: dict[str, tuple[str, str, int]] = {
    "nothing": ("", "m", 0),
    "as they should be": (',"model":"n","usage":{"prompt_tokens":3,"total_tokens":4}', "n", 3),
    "null": (',"model":null,"usage":null', "m", 0),
    "the total alone": (',"usage":{"total_tokens":4}', "m", 4),
    "below zero": (',"usage":{"prompt_tokens":-1,"total_tokens":4}', "m", 4),
    "float": (',"usage":{"prompt_tokens":3.0}', "m", 3),
    "beyond all counts": (',"usage":{"prompt_tokens":1e300}', "m", 0),
    "text": (',"model":"","usage":{"prompt_tokens":"3"}', "m", 0),
    "another type": (',"model":{"id":"n"},"usage":[3]', "m", 0),
}


@pytest.mark.parametrize(("fields", "model", "tokens"), SIDE_FIELDS.values(), ids=SIDE_FIELDS)
def test_what_is_wrong_beside_the_result_costs_none_of_it(
    fields: str, model: str, tokens: int
) -> None:
    vectors = embeddings((0, [1.0]), (1, [3.0]))[:-1] + fields.encode() + b"}"
    made = read_embeddings(vectors, TWO, "m")
    assert made.embeddings == [[1.0], [3.0]]
    scores = ranking({"index": 0, "score": 1.0}, {"index": 1, "score": 2.0})
    ranked = read_ranking(scores[:-1] + fields.encode() + b"}", PAIR, "m")
    assert ranked.scores == [1.0, 2.0]
    for result in (made, ranked):
        assert (result.model, result.input_tokens) == (model, tokens)


def test_another_size_than_asked() -> None:
    with pytest.raises(CallerFault, match="makes 1, not 2"):
        read_embeddings(embeddings((0, [1.0])), EmbedRequest(["a"], dimensions=2), None)


def test_scores_in_the_order_of_the_documents() -> None:
    body = ranking({"index": 1, "relevance_score": 0.5}, {"index": 0, "score": 0.25})
    assert read_ranking(body, PAIR, "m").scores == [0.25, 0.5]
    assert json.loads(rerank_body(PAIR, None))["top_n"] == 2


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        ranking({"index": 0, "score": 1.0}),
        ranking({"index": 0, "score": 1.0}, {"index": 1}),
        ranking({"index": 0, "score": 1.0}, {"index": 0, "score": 1.0}),
        ranking({"index": 0, "score": 1.0}, {"index": 1, "score": 1.0}, {"index": 2, "score": 1.0}),
        ranking({"index": 0, "score": 1.0}, {"index": 1, "score": 1.0}, {"index": 1, "score": 7.0}),
        ranking({"index": 0, "score": 1.0}, {"index": 1, "score": 1.0}, {"index": 1}),
    ],
)
def test_rankings_that_are_not_whole(body: bytes) -> None:
    with pytest.raises(BackendFault):
        read_ranking(body, PAIR, None)
