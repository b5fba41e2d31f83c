"""CONFIGURATION.md is true: it has every table and key, and their defaults are the code's."""

import re
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.config import (
    AgentBackendConfig,
    AgentConfig,
    BreakerConfig,
    Config,
    DaemonConfig,
    HttpClientConfig,
    HttpConfig,
    LibllamaConfig,
    LimitsConfig,
    LlamaServerConfig,
    MockConfig,
    OpenAICompatConfig,
    RouteConfig,
    RouteDefaults,
    RouteLimits,
    ShareConfig,
)

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "CONFIGURATION.md").read_text()
INTRODUCTION = "# The configuration"
SECTIONS: dict[type[Struct], str] = {
    Config: INTRODUCTION,
    DaemonConfig: "## `[daemon]`",
    LimitsConfig: "## `[limits]`",
    RouteConfig: "## `[routes.<name>]`",
    RouteDefaults: "## `[routes.<name>.defaults]`",
    RouteLimits: "## `[routes.<name>.limits]`",
    ShareConfig: "## `[clients.<label>]` and `[uids.<uid>]`",
    OpenAICompatConfig: '## `[backends.<name>]`, `kind = "openai_compat"`',
    LibllamaConfig: '## `[backends.<name>]`, `kind = "libllama"`',
    LlamaServerConfig: '## `[backends.<name>]`, `kind = "llama_server"`',
    AgentBackendConfig: '## `[backends.<name>]`, `kind = "agent"`',
    MockConfig: '## `[backends.<name>]`, `kind = "mock"`',
    BreakerConfig: "## `[backends.<name>.breaker]`",
    AgentConfig: "## `[agents.<provider>]`",
    HttpConfig: "## `[http]`",
    HttpClientConfig: "## `[http.clients.<name>]`",
}
UNITS = {"_s": "s", "_seconds": "s", "_ms": "ms", "_bytes": "bytes", "_tokens": "tokens"}


def structs_in(annotation: object) -> set[type[Struct]]:
    """Every struct that a value of this type may hold, at any depth."""
    if not (isinstance(annotation, type) and issubclass(annotation, Struct)):
        return {found for part in get_args(annotation) for found in structs_in(part)}
    below = get_type_hints(annotation, include_extras=True).values()
    return {annotation, *(found for part in below for found in structs_in(part))}


def section(heading: str) -> str:
    """What stands below the heading, up to the next one."""
    (found,) = re.findall(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", DOCUMENT, re.DOTALL | re.M)
    return str(found)


def rows(text: str, head: str) -> dict[str, list[str]]:
    """The cells of the table whose head begins so, by the name in the first."""
    (body,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\| ---.*\n((?:\|.*\n)*)", text, re.M)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
    found = {name.strip("`"): cells for name, *cells in lines}
    assert len(found) == len(lines)
    return found


def test_every_table_has_a_section_and_every_section_is_one() -> None:
    assert structs_in(Config) == set(SECTIONS)
    assert re.findall(r"^## .*", DOCUMENT, re.M) == [
        heading for heading in SECTIONS.values() if heading != INTRODUCTION
    ]


@pytest.mark.parametrize("struct", SECTIONS, ids=lambda struct: struct.__name__)
def test_every_key_stands_there_with_its_default_and_unit(struct: type[Struct]) -> None:
    told = rows(section(SECTIONS[struct]), "key")
    keys = {field.encode_name: field for field in fields(struct)}
    if struct is Config:  # its other keys are the tables
        tables = {name for name in keys if re.search(rf"^## .*`\[{name}\b", DOCUMENT, re.M)}
        assert tables == keys.keys() - {"default_route"}
        keys = {"default_route": keys["default_route"]}
    assert list(told) == list(keys)
    for name, (default, unit, meaning) in told.items():
        check_default(keys[name], default)
        assert meaning, name
        for ending, expected in UNITS.items():
            if name.endswith(ending):
                assert unit == expected, name


def check_default(field: FieldInfo, told: str) -> None:
    default = field.default_factory() if callable(field.default_factory) else field.default
    if field.required:
        assert told == "required", field.name
    elif default is None:
        assert told == "—", field.name
    elif isinstance(default, Struct):
        assert told == "table", field.name
        assert default == type(default)()
    else:
        (value,) = re.findall(r"^`(.*)`$", told)
        known = tomllib.loads(f"x = {value}")["x"]
        assert known == default, field.name
        assert isinstance(known, bool) == isinstance(default, bool), field.name


def test_kinds_of_upstreams_enforce_what_is_told() -> None:
    told = rows(section(SECTIONS[OpenAICompatConfig]), "`upstream` | `tool_choice`")
    words = {False: "no", True: "yes"}
    assert told == {
        name: [
            words[dialect.tool_choice],
            words[dialect.response_format],
            words[dialect.grammar_field is not None],
            words[dialect.thinking_by is not None],
        ]
        for name, dialect in DIALECTS.items()
    }


def test_it_is_found_from_the_readme() -> None:
    assert "](CONFIGURATION.md)" in (ROOT / "README.md").read_text()
