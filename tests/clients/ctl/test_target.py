"""What a TARGET means, and what must not stand on a command line."""

import json
from pathlib import Path

import click
import pytest

from inferd_client.ctl.json_files import read_schema, read_tools
from inferd_client.ctl.target import parse_target


def test_a_word_is_a_route() -> None:
    assert parse_target("qwen3", []) == "qwen3"
    assert parse_target("org/model:8b", []) == "org/model:8b"
    with pytest.raises(click.UsageError, match="'qwen3' is a route"):
        parse_target("qwen3", ["ctx_size=1"])


def test_a_model_file_is_a_boot_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.chdir(tmp_path)
    settings = ["ctx_size=4096", "flash_attn=on", 'extra_args=["--no-mmap"]', "gpu_layers=all"]
    assert parse_target("tiny.gguf", settings) == {
        "model": str(tmp_path / "tiny.gguf"),
        "ctx_size": 4096,
        "flash_attn": "on",
        "extra_args": ["--no-mmap"],
        "gpu_layers": "all",
    }
    with pytest.raises(click.UsageError, match=r"no model file none\.gguf"):
        parse_target("none.gguf", [])


def test_a_url_is_a_service() -> None:
    spec = parse_target("http://localhost:11434", ["kind=ollama", "model_identity=qwen3:8b"])
    assert spec == {
        "root_url": "http://localhost:11434",
        "kind": "ollama",
        "model_identity": "qwen3:8b",
    }


def test_a_spec_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"model": "/m.gguf", "api_key": "k"}')
    assert parse_target(f"@{path}", ["parallel=2"]) == {
        "model": "/m.gguf",
        "api_key": "k",
        "parallel": 2,
    }


def test_a_spec_does_not_stand_on_the_command_line() -> None:
    with pytest.raises(click.UsageError, match="@FILE"):
        parse_target('{"model": "/m.gguf"}', [])


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("api_key=s3cret", "would be seen by every user"),
        ('headers={"x-key": "s3cret"}', "would be seen by every user"),
        ("ctx_size", "FIELD=VALUE"),
        ("=1", "FIELD=VALUE"),
    ],
)
def test_settings_that_are_refused(setting: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=why) as caught:
        parse_target("http://localhost:1", [setting])
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON text"),
        ("[]", "not a JSON object"),
        (None, "cannot read"),
        ("[" * 9000, "not"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "spec.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(click.UsageError, match=why):
        parse_target(f"@{path}", [])
    with pytest.raises(click.UsageError, match=why):
        read_schema(str(path))


OURS = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
THEIRS = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}},
}


@pytest.mark.parametrize("value", [OURS, [OURS], THEIRS, [THEIRS]])
def test_tools_in_either_form(tmp_path: Path, value: object) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(value))
    (tool,) = read_tools(str(path))
    assert (tool.name, tool.description, tool.input_schema) == ("weather", "d", {"type": "object"})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "names no tools"),
        ([OURS, {}], "tool 2 has no name"),
        ([7], "tool 1 has no name"),
        ([{"name": "x", "input_schema": []}], "tool 1: its schema is not a JSON object"),
    ],
)
def test_tools_that_make_no_sense(tmp_path: Path, value: object, why: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(value))
    with pytest.raises(click.UsageError, match=why):
        read_tools(str(path))
