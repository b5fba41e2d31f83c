"""The packaged demo model is what its script builds, and llama.cpp recites it."""

import json
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from inferd_daemon.models.demo import demo_model_path
from tests.support.demo_model import AFTER_TOOL, GREETING, build, split_passage

MAX_BYTES = 1_000_000

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 3, "maximum": 7},
                "hours": {"type": "array", "items": {"type": "object"}},
                "near": {
                    "type": "object",
                    "properties": {"exact": {"type": "boolean"}},
                    "required": ["exact"],
                },
            },
            "required": ["city", "unit", "days", "hours", "near"],
        },
    },
}
WEATHER_ARGUMENTS = {
    "city": "demo",
    "unit": "celsius",
    "days": 3,
    "hours": [],
    "near": {"exact": True},
}
NO_ARGUMENTS = {"type": "function", "function": {"name": "now"}}
QUESTION = {"role": "user", "content": "What is the weather in Łódź? 🌦"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = str(demo_model_path())
    params.hostnames = [str(tmp_path_factory.mktemp("demo") / "s.sock")]
    params.cpuparams.n_threads = 1
    params.verbosity = 1
    return xllamacpp.Server(params)


def ask(server: xllamacpp.Server, *messages: dict[str, Any], **options: object) -> dict[str, Any]:
    """Return the one choice of a chat completion."""
    reply = server.handle_chat_completions(
        {"messages": messages or [QUESTION], "max_tokens": 200, **options}
    )
    [choice] = reply["choices"]
    return dict(choice)


def test_is_built_byte_for_byte(tmp_path: Path) -> None:
    build(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == demo_model_path().read_bytes()
    assert demo_model_path().stat().st_size <= MAX_BYTES


def test_a_repeated_word_takes_its_neighbour_along() -> None:
    assert split_passage("so it is, and so it goes", set()) == [
        *("so", " it", " is,", " and", " so", " it goes"),
    ]
    with pytest.raises(ValueError, match="already used"):
        split_passage("so it is", {" is"})


@pytest.mark.parametrize("temperature", [0, 1, 5])
def test_recites_at_any_temperature(server: xllamacpp.Server, temperature: float) -> None:
    choice = ask(server, temperature=temperature, top_p=1, top_k=0, min_p=0)
    assert choice["message"]["content"] == GREETING
    assert choice["finish_reason"] == "stop"


def test_recites_without_a_template_and_without_an_end(server: xllamacpp.Server) -> None:
    prompt = {"prompt": "Once", "max_tokens": 300, "ignore_eos": True}
    text = server.handle_completions(prompt)["choices"][0]["text"]
    assert text.startswith(f"\n\n{GREETING}\n\n{GREETING}")


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(("tool", "arguments"), [(WEATHER, WEATHER_ARGUMENTS), (NO_ARGUMENTS, {})])
def test_calls_a_declared_tool(
    server: xllamacpp.Server,
    tool: dict[str, Any],
    arguments: dict[str, Any],
    temperature: float,
    choice: str,
) -> None:
    reply = ask(server, tools=[tool], tool_choice=choice, temperature=temperature)
    assert reply["finish_reason"] == "tool_calls"
    [call] = reply["message"]["tool_calls"]
    assert call["function"]["name"] == tool["function"]["name"]
    assert json.loads(call["function"]["arguments"]) == arguments


def answered() -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    return [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
    ]


def test_a_tool_result_ends_the_turn(server: xllamacpp.Server) -> None:
    reply = ask(server, *answered(), tools=[NO_ARGUMENTS])
    assert reply["message"]["content"] == AFTER_TOOL
    assert "tool_calls" not in reply["message"]


def test_a_required_call_comes_even_after_a_tool_result(server: xllamacpp.Server) -> None:
    reply = ask(server, *answered(), tools=[NO_ARGUMENTS], tool_choice="required")
    [call] = reply["message"]["tool_calls"]
    assert call["function"]["name"] == "now"


def test_fills_in_a_schema(server: xllamacpp.Server) -> None:
    schema = WEATHER["function"]["parameters"]  # type: ignore[index]
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}}
    for temperature in (0, 1):
        reply = ask(server, response_format=wanted, temperature=temperature)
        assert json.loads(reply["message"]["content"]) == WEATHER_ARGUMENTS


def test_follows_a_grammar_to_its_end(server: xllamacpp.Server) -> None:
    grammar = 'root ::= line+\nline ::= "- " [a-z]+ " " [0-9]+ ".\\n"'
    reply = ask(server, grammar=grammar)
    assert reply["message"]["content"] == "- t 1.\n"
    assert reply["finish_reason"] == "stop"
