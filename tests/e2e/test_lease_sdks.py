"""Vendors' own SDKs at the HTTP routes of leases: of a model, and of a scripted agent."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types.responses.response import IncompleteDetails

from tests.support import models
from tests.support.agent_client import HTTP, LOCAL_ROUTE, agent_daemon
from tests.support.lease_client import Json, ask, ensure, runtimes
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import connected

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CUT = IncompleteDetails(reason="max_output_tokens")
HI: Any = {"role": "user", "content": "say hello you"}


def key_of(endpoint: Json) -> str:
    key: str = endpoint["headers"]["Authorization"].removeprefix("Bearer ")
    return key


def test_openais_sdk_at_an_agent(tmp_path: Path) -> None:
    with agent_daemon(tmp_path) as daemon, connected(daemon.socket) as client:
        endpoint = ensure(client, {"agent": "claude", "model": "opus"})["endpoint"]
        with openai.OpenAI(
            base_url=endpoint["base_url"], api_key=key_of(endpoint), max_retries=0
        ) as sdk:
            whole = sdk.chat.completions.create(model="opus", messages=[HI])
            assert whole.choices[0].message.content == "hello you "
            stream = sdk.chat.completions.create(
                model="opus",
                messages=[HI],
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
            said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
            assert "".join(filter(None, said)) == "hello you "
            assert chunks[-1].usage is not None
            assert [model.id for model in sdk.models.list()] == ["opus"]
            with pytest.raises(openai.BadRequestError, match="no tools"):
                sdk.chat.completions.create(
                    model="opus",
                    messages=[HI],
                    tools=[{"type": "function", "function": {"name": "f"}}],
                )
            with pytest.raises(openai.BadRequestError) as refused:
                sdk.chat.completions.create(model="haiku", messages=[HI])
            assert refused.value.param == "model"
            with pytest.raises(openai.AuthenticationError):
                sdk.with_options(api_key="wrong").models.list()
            ask(client, "lease.release", lease_ref=endpoint["lease_ref"])
            with pytest.raises(openai.NotFoundError):
                sdk.models.list()


def test_both_sdks_at_a_model(tmp_path: Path) -> None:
    with (
        agent_daemon(tmp_path, LOCAL_ROUTE + HTTP, server=llama_server_path()) as daemon,
        connected(daemon.socket) as client,
    ):
        endpoint = ensure(client, "local", transport="tcp")["endpoint"]
        key = key_of(endpoint)
        with openai.OpenAI(base_url=endpoint["base_url"], api_key=key, max_retries=0) as sdk:
            whole = sdk.chat.completions.create(model="demo", messages=[HI])
            assert "demo model" in (whole.choices[0].message.content or "")
            cut = sdk.responses.create(model="demo", input="hi", max_output_tokens=3)
            assert (cut.status, cut.incomplete_details) == ("incomplete", CUT)
            form: Any = {"type": "json_schema", "name": "x", "schema": SCHEMA}
            formed = sdk.responses.create(model="demo", input="hi", text={"format": form})
            assert list(json.loads(formed.output_text)) == ["a"]
            with sdk.responses.stream(model="demo", input="hi") as events:
                assert "demo model" in events.get_final_response().output_text
        root = endpoint["base_url"].removesuffix("/v1")
        with anthropic.Anthropic(base_url=root, api_key=key, max_retries=0) as claude:
            message = claude.messages.create(
                model="demo",
                max_tokens=64,
                messages=[HI],
            )
            assert message.content[0].type == "text"
            with claude.messages.stream(
                model="demo",
                max_tokens=64,
                messages=[HI],
            ) as stream:
                assert "demo model" in "".join(stream.text_stream)


@pytest.mark.parametrize("api", ["messages", "chat", "responses"])
def test_a_stream_whose_runtime_dies_raises(tmp_path: Path, api: str) -> None:
    """None of the SDKs may take what came so far for the whole answer."""
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    config = LOCAL_ROUTE.replace('"demo"', f'"{model}"')
    with (
        agent_daemon(tmp_path, config + HTTP, server=llama_server_path()) as daemon,
        connected(daemon.socket) as client,
    ):
        endpoint = ensure(client, "local", transport="tcp")["endpoint"]
        key, url = key_of(endpoint), endpoint["base_url"]
        (runtime,) = (one for one in runtimes(client) if one.get("pid"))
        asked: Any = {"model": "endless", "stream": True}
        claude = anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0)
        sdk = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
        with claude, sdk:
            stream: Any
            match api:
                case "messages":
                    stream = claude.messages.create(max_tokens=100_000, messages=[HI], **asked)
                case "chat":
                    stream = sdk.chat.completions.create(messages=[HI], **asked)
                case _:
                    stream = sdk.responses.create(input="hello", **asked)
            error = anthropic.APIError if api == "messages" else openai.APIError
            events = iter(stream)
            next(events)
            os.kill(runtime["pid"], signal.SIGSTOP)
            os.kill(runtime["pid"], signal.SIGKILL)
            with pytest.raises(error, match="broke the connection"):
                list(events)
