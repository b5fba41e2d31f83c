"""Anthropic's own client on `/v1/messages`, against a real daemon with the demo model."""

from collections.abc import Iterator

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import MessageParam, ToolParam

from tests.support.http_models import HttpModels, http_models

QUESTION: list[MessageParam] = [{"role": "user", "content": "Who are you, and what can you do?"}]
GREEDY = {"temperature": 0}
"""Newer versions of the SDK have no argument for it."""
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def serving() -> Iterator[HttpModels]:
    """One daemon for all tests here."""
    with http_models() as models:
        yield models


@pytest.fixture
def client(serving: HttpModels) -> Iterator[Anthropic]:
    """Sends the key as `x-api-key`; without retries."""
    with Anthropic(
        base_url=serving.root_url, api_key=serving.key, max_retries=0, timeout=80
    ) as made:
        yield made


def test_message(client: Anthropic) -> None:
    """Blocks, the reason, the figures."""
    message = client.messages.create(
        model="demo", max_tokens=8, system="Be brief.", messages=QUESTION, extra_body=GREEDY
    )
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 8


def test_message_stream_says_the_same(client: Anthropic) -> None:
    """The SDK's helper follows every event of the protocol."""
    whole = client.messages.create(model="demo", max_tokens=8, messages=QUESTION, extra_body=GREEDY)
    with client.messages.stream(
        model="demo", max_tokens=8, messages=QUESTION, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 8


def test_raw_events_in_their_order(client: Anthropic) -> None:
    """From the start of the message to its stop."""
    stream = client.messages.create(model="demo", max_tokens=3, messages=QUESTION, stream=True)
    kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_tool_use(client: Anthropic) -> None:
    """A forced call, with its input as an object."""
    message = client.messages.create(
        model="demo",
        max_tokens=100,
        messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
        tools=[WEATHER],
        tool_choice={"type": "any"},
        extra_body=GREEDY,
    )
    (block,) = [block for block in message.content if block.type == "tool_use"]
    assert block.name == "weather"
    assert isinstance(block.input["city"], str)
    assert message.stop_reason == "tool_use"


def test_count_tokens(client: Anthropic) -> None:
    """As many as a message then takes."""
    counted = client.messages.count_tokens(model="demo", messages=QUESTION)
    message = client.messages.create(model="demo", max_tokens=1, messages=QUESTION)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_errors_are_those_that_the_sdk_knows(client: Anthropic) -> None:
    """In Anthropic's shape, with the type that belongs to the status."""
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        client.messages.create(model="claude", max_tokens=1, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError, match="does not support /v1/messages"):
        client.messages.create(model="mock", max_tokens=1, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.create(model="demo", max_tokens=1, messages=[])
    with pytest.raises(anthropic.BadRequestError, match="fetches nothing"):
        client.messages.create(
            model="demo",
            max_tokens=1,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "url", "url": "http://127.0.0.1:9/x.png"},
                        }
                    ],
                }
            ],
        )


def test_a_schema_is_not_promised(client: Anthropic) -> None:
    """No worker would obey it; what else the field holds passes."""
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    for extra, field in (
        ({"output_config": {"format": schema}}, "output_config.format"),
        ({"output_format": schema}, "output_format"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=f"`{field}`"):
            client.messages.create(model="demo", max_tokens=1, messages=QUESTION, extra_body=extra)
    effort = {"output_config": {"effort": "low", "format": None}}
    message = client.messages.create(
        model="demo", max_tokens=1, messages=QUESTION, extra_body=effort
    )
    assert message.content


def test_a_bearer_token_does_as_well(serving: HttpModels) -> None:
    """Command lines of coding agents send it so; a wrong key opens nothing."""
    with Anthropic(base_url=serving.root_url, auth_token=serving.key, max_retries=0) as bearer:
        assert bearer.messages.create(model="demo", max_tokens=1, messages=QUESTION).content
    stranger = Anthropic(base_url=serving.root_url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="demo", max_tokens=1, messages=QUESTION)
