"""Facts are read from `/props` as llama.cpp writes it, and from what lacks half of it."""

import msgspec
import pytest

from inferd_daemon.backends.runtime import ModelFacts
from inferd_daemon.engines.model_facts import parse_props


def test_a_whole_answer() -> None:
    props = {
        "default_generation_settings": {"n_ctx": 8192, "params": {"seed": 1}},
        "total_slots": 4,
        "model_alias": "qwen",
        "modalities": {"vision": True, "video": True, "audio": False},
        "chat_template": "{% if enable_thinking %}<think>{% endif %}",
        "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True},
    }
    assert parse_props(msgspec.json.encode(props)) == ModelFacts(
        model="qwen",
        n_ctx=8192,
        slots=4,
        vision=True,
        template_tools=True,
        template_thinking=True,
    )


def test_an_older_server_says_less() -> None:
    assert parse_props(b'{"total_slots":1}') == ModelFacts(slots=1)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"total_slots":"many"}'])
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_props(body)
