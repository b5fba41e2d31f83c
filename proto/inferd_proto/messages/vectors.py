"""Embeddings and rerank: one question, one answer (wire.md section 5)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .limits import (
    MAX_EMBED_INPUTS,
    MAX_RERANK_DOCUMENTS,
    MAX_RERANK_TEXT_BYTES,
    Count,
    Label,
    NonEmpty,
)

EmbedTask = Literal[
    "retrieval_query",
    "retrieval_document",
    "similarity",
    "classification",
    "clustering",
    "question_answering",
    "fact_verification",
    "code_retrieval_query",
]


class Embed(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Texts to turn into vectors."""

    id: str = ""
    input: Annotated[list[NonEmpty], Meta(min_length=1, max_length=MAX_EMBED_INPUTS)]
    dimensions: Count | None = None
    task: EmbedTask | None = None
    model: str | None = None
    client: Label = ""


class Rerank(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Documents to score against a query."""

    id: str = ""
    query: NonEmpty
    documents: Annotated[list[NonEmpty], Meta(min_length=1, max_length=MAX_RERANK_DOCUMENTS)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    model: str | None = None
    client: Label = ""

    def __post_init__(self) -> None:
        total = sum(len(text.encode()) for text in self.documents) + len(self.query.encode())
        if total > MAX_RERANK_TEXT_BYTES:
            raise ValueError(
                f"`documents`: {total} bytes of text are over the cap of {MAX_RERANK_TEXT_BYTES}"
            )


class InputUsage(Struct, frozen=True, gc=False):
    """Tokens read, as the engine counted them."""

    input_tokens: int


class Embeddings(Struct, frozen=True, tag_field="type", tag="embeddings"):
    """One vector for each input, in the order asked; `dimensions` is their length."""

    id: str
    embeddings: list[list[float]]
    dimensions: int
    model: str
    usage: InputUsage
    backend: str


class RankedDocument(Struct, frozen=True, gc=False):
    """`index` into the documents asked, and the raw score."""

    index: int
    score: float


class Ranking(Struct, frozen=True, tag_field="type", tag="rerank"):
    """Documents by score, best first."""

    id: str
    results: list[RankedDocument]
    model: str
    usage: InputUsage
    backend: str
