"""What the kinds of Chat Completions servers understand beyond the common core, as one table.

A constraint that a server would ignore must be refused, never dropped; so a kind promises only
what its documentation does.
"""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from ...config import OpenAICompatConfig, UpstreamKind
from ...config.backend_rules import API_PREFIXES


class Dialect(Struct, frozen=True, kw_only=True):
    """How one kind is asked.

    `thinking_by` names the way thinking is switched: the template's `enable_thinking`, OpenRouter's
    `reasoning` object, or `reasoning_effort`; None where there is none. `grammar_field` takes GBNF.
    `stop_details` asks llama-server which stop word ended the answer, `progress` for signs of life
    while it reads a long prompt. `require_parameters` lets OpenRouter choose only providers that
    honour every field. `dimensions`: embeddings can be shortened; `rerank`: `/v1/rerank` is there.
    `plain`: its chunks are those of OpenAI, with reasoning as `reasoning_content`, so that they can
    be passed on undecoded. `apis`: other paths that it serves; with `chat_format` it takes a
    `response_format` on `/v1/responses` too, and no `text.format`. `api_prefix` stands before
    `/v1`.
    """

    tool_choice: bool = False
    response_format: bool = False
    grammar_field: str | None = None
    thinking_by: Literal["template", "reasoning", "effort"] | None = None
    max_tokens_field: str = "max_tokens"
    top_k: bool = True
    min_p: bool = True
    stop_details: bool = False
    progress: bool = False
    require_parameters: bool = False
    dimensions: bool = False
    rerank: bool = False
    plain: bool = False
    apis: tuple[str, ...] = ()
    chat_format: bool = False
    api_prefix: str = ""


COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"

DIALECTS: dict[UpstreamKind, Dialect] = {
    "llama_server": Dialect(
        tool_choice=True,
        response_format=True,
        grammar_field="grammar",
        thinking_by="template",
        stop_details=True,
        progress=True,
        rerank=True,
        plain=True,
        apis=(COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS),
        chat_format=True,
    ),
    "vllm": Dialect(
        tool_choice=True,
        response_format=True,
        thinking_by="template",
        dimensions=True,
        rerank=True,
        apis=(COMPLETIONS,),
    ),
    "sglang": Dialect(
        tool_choice=True,
        response_format=True,
        grammar_field="ebnf",
        thinking_by="template",
        dimensions=True,
        rerank=True,
        plain=True,
        apis=(COMPLETIONS,),
    ),
    "lmstudio": Dialect(response_format=True, plain=True, apis=(COMPLETIONS,)),
    "localai": Dialect(grammar_field="grammar", rerank=True, plain=True, apis=(COMPLETIONS,)),
    "ollama": Dialect(
        response_format=True,
        thinking_by="effort",
        top_k=False,
        min_p=False,
        apis=(COMPLETIONS,),
    ),
    "openai": Dialect(
        tool_choice=True,
        response_format=True,
        max_tokens_field="max_completion_tokens",
        top_k=False,
        min_p=False,
        dimensions=True,
        plain=True,
        apis=(RESPONSES,),
    ),
    "openrouter": Dialect(
        tool_choice=True,
        response_format=True,
        thinking_by="reasoning",
        require_parameters=True,
        api_prefix=API_PREFIXES["openrouter"],
    ),
    "generic": Dialect(top_k=False, min_p=False, rerank=True, plain=True),
}


def dialect_of(config: OpenAICompatConfig) -> Dialect:
    """The kind's, with what the configuration knows better."""
    kind = DIALECTS[config.upstream]
    enforces = (kind.tool_choice, kind.response_format, kind.grammar_field is not None)
    told = (config.tool_choice, config.response_format, config.grammar)
    tool_choice, response_format, grammar = (
        known if own is None else own for known, own in zip(enforces, told, strict=True)
    )
    return replace(
        kind,
        tool_choice=tool_choice and config.tools,
        response_format=response_format,
        grammar_field=(kind.grammar_field or "grammar") if grammar else None,
    )
