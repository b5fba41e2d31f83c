"""Bodies of the older Completions: one prompt as text, everything else by its name."""

import json

import pytest

from inferd_daemon.backends.base import Sampling
from inferd_daemon.fronts.http.openai.completion_request import CompletionRequest, parse_completion
from inferd_daemon.fronts.http.openai.json_body import FieldFault
from inferd_daemon.fronts.http.openai.raw_request import raw_completion
from inferd_proto import Message, Text


def parse(**fields: object) -> CompletionRequest:
    """Of a body with the prompt "once"."""
    return parse_completion(json.dumps({"prompt": "once", **fields}).encode())


@pytest.mark.parametrize("prompt", ["once", ["once"]])
def test_prompt(prompt: object) -> None:
    """As it stands, and as what a user says where a backend only chats."""
    asked = parse(prompt=prompt, model="m", stream=True, stream_options={"include_usage": True})
    assert asked.prompt == "once"
    assert asked.generate.messages == [Message("user", [Text("once")])]
    assert (asked.model, asked.stream, asked.include_usage) == ("m", True, True)


def test_sampling() -> None:
    """As in chat; wishes without effect are ignored."""
    asked = parse(
        **{"max_tokens": 5, "temperature": 0.5, "seed": 2**32, "stop": "x", "n": 1, "best_of": 1},
        **{"echo": False, "suffix": None, "logprobs": None, "logit_bias": {}, "user": "u"},
    )
    assert asked.generate.sampling == Sampling(max_tokens=5, temperature=0.5, seed=0, stop=["x"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
)
def test_refused_by_name(fields: dict[str, object], param: str) -> None:
    """What this server does not do."""
    with pytest.raises(FieldFault) as caught:
        parse(**fields)
    assert caught.value.param == param


def test_for_a_runtime_that_continues_prompts_itself() -> None:
    """What was asked, in the API's own words, and nothing that was not."""
    asked = parse(max_tokens=5, stop=["x"], model="m", presence_penalty=1)
    raw = raw_completion(asked, asked.generate)
    assert isinstance(raw.body, dict)
    assert {name: json.loads(bytes(value)) for name, value in raw.body.items()} == {
        "prompt": "once",
        "max_tokens": 5,
        "stop": ["x"],
        "presence_penalty": 1.0,
        "model": "m",
        "stream": False,
    }
    assert (raw.path, raw.stream) == ("/v1/completions", False)
