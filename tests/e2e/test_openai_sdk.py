"""OpenAI's own client against a real daemon with the demo model."""

import asyncio
import json
import struct
import threading
from base64 import b64decode
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses.response import IncompleteDetails

from tests.support.daemon import wait_until
from tests.support.http_models import HttpModels, http_models

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

QUESTION = "Who are you, and what can you do?"
WEATHER: "ChatCompletionToolParam" = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city for some days.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
STRICT: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
CUT = IncompleteDetails(reason="max_output_tokens")
CLOCK: "ChatCompletionToolParam" = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def serving() -> Iterator[HttpModels]:
    """One daemon for all tests here: what each leaves behind, the next one meets."""
    with http_models() as models:
        yield models


@pytest.fixture
def client(serving: HttpModels) -> Iterator[OpenAI]:
    """With the key, and without retries: a second try would hide a failure."""
    with OpenAI(base_url=serving.base_url, api_key=serving.key, max_retries=0, timeout=80) as made:
        yield made


def ask(text: str) -> "list[ChatCompletionMessageParam]":
    """What a user says."""
    return [{"role": "user", "content": text}]


# -- chat ------------------------------------------------------------------------------------


def test_chat(client: OpenAI) -> None:
    """An answer of a real model, with its figures."""
    answer = client.chat.completions.create(
        model="demo", messages=ask(QUESTION), max_tokens=12, temperature=0, seed=1
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.model == "demo"
    assert answer.object == "chat.completion"


def test_chat_stream_says_the_same(client: OpenAI) -> None:
    """Token by token, and the usage at the end where it was asked for."""
    whole = client.chat.completions.create(
        model="demo", messages=ask(QUESTION), max_tokens=12, temperature=0
    )
    stream = client.chat.completions.create(
        model="demo",
        messages=ask(QUESTION),
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert len([text for text in texts if text]) == 12
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_the_stream_helper(client: OpenAI) -> None:
    """The SDK puts chunks together by rules of its own."""
    with client.chat.completions.stream(
        model="demo", messages=ask(QUESTION), stop=[" am"]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content


def test_a_system_message_and_history(client: OpenAI) -> None:
    """Every role that the API has, tool calls replayed among them."""
    answer = client.chat.completions.create(
        model="demo",
        max_tokens=8,
        tools=[WEATHER],
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [{"type": "text", "text": "What is the weather?"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            {"role": "user", "content": "And tomorrow?"},
        ],
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 20


def test_a_required_tool_call(client: OpenAI) -> None:
    """The arguments are JSON, and fit the schema."""
    answer = client.chat.completions.create(
        model="demo",
        messages=ask("What is the weather in Oslo?"),
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_a_named_tool_call_in_a_stream(client: OpenAI) -> None:
    """The tool that is named, though there are others; one delta with its index."""
    stream = client.chat.completions.create(
        model="demo",
        messages=ask("What is the weather in Oslo?"),
        tools=[CLOCK, WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        stream=True,
    )
    choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    deltas = [delta for choice in choices for delta in choice.delta.tool_calls or ()]
    (call,) = deltas
    assert call.index == 0
    assert call.id
    assert call.function is not None
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments or "")
    assert choices[-1].finish_reason == "tool_calls"


def test_a_json_schema(client: OpenAI) -> None:
    """It binds: whatever the model would rather have said."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="demo",
        messages=ask("Is it so?"),
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": schema, "strict": True},
        },
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"ok"}


def test_stop_words(client: OpenAI) -> None:
    """The answer ends before one, and says so."""
    answer = client.chat.completions.create(
        model="demo", messages=ask(QUESTION), temperature=0, stop=[" am"]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert " am" not in (answer.choices[0].message.content or "")


def test_a_text_model_takes_no_image(client: OpenAI) -> None:
    """An image that can be read is still refused, by what the model lacks."""
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8Dw"
        "HwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
    )
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="demo",
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": pixel}}],
                }
            ],
        )
    assert caught.value.code == "attachment_unsupported"


# -- the other endpoints -----------------------------------------------------------------------


def test_completions(client: OpenAI) -> None:
    """A prompt goes on as it stands, streamed or not."""
    whole = client.completions.create(model="demo", prompt="Hello", max_tokens=6, temperature=0)
    assert whole.object == "text_completion"
    assert whole.choices[0].text
    stream = client.completions.create(
        model="demo", prompt="Hello", max_tokens=6, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_embeddings(client: OpenAI) -> None:
    """The SDK asks for base64 by itself; numbers say the same."""
    packed = client.embeddings.create(model="vectors", input=["one", "two"])
    numbers = client.embeddings.create(
        model="vectors", input=["one", "two"], encoding_format="float"
    )
    assert [one.index for one in packed.data] == [0, 1]
    for mine, theirs in zip(packed.data, numbers.data, strict=True):
        assert mine.embedding == pytest.approx(theirs.embedding, rel=1e-6)
    assert packed.data[0].embedding != packed.data[1].embedding
    raw = client.embeddings.create(model="vectors", input="one", encoding_format="base64")
    text = raw.data[0].embedding
    assert isinstance(text, str)
    count = len(numbers.data[0].embedding)
    unpacked = struct.unpack(f"<{count}f", b64decode(text))
    assert list(unpacked) == pytest.approx(numbers.data[0].embedding, rel=1e-6)


def test_responses(client: OpenAI) -> None:
    """By the worker's own words, streamed or not; cut at their limit, as they say."""
    whole = client.responses.create(
        model="demo", input=QUESTION, max_output_tokens=8, temperature=0
    )
    assert whole.output_text
    assert (whole.status, whole.incomplete_details) == ("incomplete", CUT)
    stream = client.responses.create(
        model="demo", input=QUESTION, max_output_tokens=8, temperature=0, stream=True
    )
    events = list(stream)
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type == "response.incomplete"
    assert (last.response.status, last.response.incomplete_details) == ("incomplete", CUT)
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(texts) == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize("model", ["demo", "spawned"])
def test_the_stream_helper_of_responses(client: OpenAI, model: str) -> None:
    """It puts the answer together by the indices of the events: text, and calls."""
    with client.responses.stream(model=model, input=QUESTION, temperature=0) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed"
    assert "".join(texts) == final.output_text
    tools: list[Any] = [
        {
            **{"type": "function", "name": "weather", "strict": True},
            "parameters": STRICT | {"properties": {"city": {"type": "string"}}},
        }
    ]
    with client.responses.stream(
        model=model, input="Oslo?", tools=tools, tool_choice="required"
    ) as stream:
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert list(json.loads(call.arguments)) == ["city"]


@pytest.mark.parametrize("model", ["demo", "spawned"])
def test_a_schema_of_responses_is_obeyed(client: OpenAI, model: str) -> None:
    """By `text.format` too, which the worker itself does not know."""
    given: Any = {"type": "json_schema", "name": "x", "schema": STRICT, "strict": True}
    answer = client.responses.create(model=model, input=QUESTION, text={"format": given})
    assert list(json.loads(answer.output_text)) == ["city"]
    loose = client.responses.create(
        model=model, input=QUESTION, text={"format": {"type": "json_object"}}
    )
    assert isinstance(json.loads(loose.output_text), dict)


def test_an_answer_that_fills_the_context_says_so(client: OpenAI) -> None:
    """It has no limit of its own."""
    answer = client.responses.create(model="narrow", input=" a" * 470)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 512
    assert (answer.status, answer.incomplete_details) == ("incomplete", CUT)


def test_fields_that_say_nothing(client: OpenAI) -> None:
    """Null is as if they were not there."""
    nothing = dict.fromkeys(("tools", "tool_choice", "instructions", "reasoning", "temperature"))
    answer = client.responses.create(
        model="demo", input=QUESTION, max_output_tokens=2, extra_body=nothing
    )
    assert answer.output_text


def test_models(client: OpenAI) -> None:
    """Every route."""
    names = {model.id for model in client.models.list()}
    assert names == {"demo", "vectors", "spawned", "mock", "endless", "broken", "narrow"}


# -- what goes wrong ---------------------------------------------------------------------------


def test_errors_are_those_that_the_sdk_knows(serving: HttpModels, client: OpenAI) -> None:
    """Each with its class, its code and the field at fault."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=ask("hi"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="demo", messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(openai.BadRequestError, match="does not support /v1/responses"):
        client.responses.create(model="mock", input="hi")
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        client.embeddings.create(model="demo", input="hi")
    stranger = OpenAI(base_url=serving.base_url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="demo", messages=ask("hi"))


def test_a_stream_that_breaks_off_raises(client: OpenAI) -> None:
    """The tokens that came, then the error: no short answer that looks whole."""
    stream = client.chat.completions.create(model="broken", messages=ask("hi"), stream=True)
    deltas = (chunk.choices[0].delta.content or "" for chunk in stream)
    texts: list[str] = []
    with pytest.raises(openai.APIError):
        texts.extend(deltas)
    assert "".join(texts) == "tok0 tok1 tok2 "


def test_a_full_queue_says_when_to_come_back(client: OpenAI) -> None:
    """Two streams hold both places, and give them back when they are left."""
    streams = [
        client.chat.completions.create(model="endless", messages=ask("hi"), stream=True)
        for _ in range(2)
    ]
    for stream in streams:
        next(iter(stream))
    with pytest.raises(openai.RateLimitError) as full:
        client.chat.completions.create(model="endless", messages=ask("hi"))
    assert int(full.value.response.headers["retry-after"]) >= 1
    for stream in streams:
        stream.close()

    def has_room() -> bool:
        try:
            with client.chat.completions.create(
                model="endless", messages=ask("hi"), stream=True
            ) as stream:
                return bool(next(iter(stream)))
        except openai.RateLimitError:
            return False

    wait_until(has_room, 2, "a place that was given back")


# -- asyncio -----------------------------------------------------------------------------------


def test_the_async_client(serving: HttpModels) -> None:
    """On asyncio, in a thread beside trio's: several requests on their way at once."""
    texts: list[str] = []

    async def one(client: AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model="mock", messages=ask(f"{number}"), max_tokens=5, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def main() -> None:
        async with AsyncOpenAI(base_url=serving.base_url, api_key=serving.key) as client:
            texts.extend(await asyncio.gather(*(one(client, number) for number in range(8))))

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(80)
    assert texts == ["tok0 tok1 tok2 tok3 tok4 "] * 8
