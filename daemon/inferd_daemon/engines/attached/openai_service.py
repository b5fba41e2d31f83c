"""Attached services of kind `openai`: ready and healthy by `GET /v1/models`."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ...backends.runtime import ModelFacts
from ..base import Health
from ..http_probe import ProbeError, missed
from ..model_facts import UNREADABLE
from .service import AttachedService, Sight


class _Meta(Struct):
    n_ctx: int | None = None


class _Model(Struct):
    id: Annotated[str, Meta(min_length=1)]
    max_model_len: int | None = None
    meta: _Meta | None = None


class _Models(Struct):
    data: list[_Model]


class OpenAIService(AttachedService):
    """vLLM, LM Studio, a llama-server of someone else's, or any other that speaks the API."""

    backend = "openai"
    health_path = "/v1/models"

    async def observe(self) -> Sight:
        """By the list of models; what a model's name means is the service's own business."""
        root = self.spec.root_url
        try:
            status, body = await self.ask("/v1/models")
        except ProbeError as error:
            return Sight(missed(error), f"{root} does not answer: {error}")
        if refused := self.refused(status):
            return refused
        if status != 200:
            # Loading, overloaded, or behind a gateway that does not reach it.
            lacks = status in (404, 405, 501)
            health = Health.NO_ANSWER if lacks else Health.LOADING
            return Sight(health, f"{root}/v1/models answers {status}", settled=lacks)
        try:
            models = msgspec.json.decode(body, type=_Models).data
        except UNREADABLE:
            words = f"{root}/v1/models answers, but with no list of models"
            return Sight(Health.NO_ANSWER, words, settled=True)
        if not models and self.spec.model_identity is None:
            return Sight(Health.LOADING, f"{root} lists no model yet")
        self.facts = _facts(self.spec.model_identity, models)
        return Sight(Health.HEALTHY)


def _facts(identity: str | None, models: list[_Model]) -> ModelFacts:
    """Of the model that is named, else of the first; little where it is not listed."""
    named = [model for model in models if identity in (None, model.id)]
    if not named:
        return ModelFacts(model=identity or "", capabilities={})
    model = named[0]
    n_ctx = model.max_model_len or (None if model.meta is None else model.meta.n_ctx)
    return ModelFacts(model=model.id, n_ctx=n_ctx, capabilities={})
