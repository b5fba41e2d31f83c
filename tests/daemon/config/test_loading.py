"""Configuration files: every mistake with its key and line, nothing secret shown."""

import os
import tomllib
from pathlib import Path

import msgspec
import pytest

from inferd_daemon.config import (
    Config,
    ConfigError,
    LibllamaConfig,
    MockConfig,
    OpenAICompatConfig,
    RouteConfig,
    find_config_file,
    load_config,
    parse_config,
    render_config,
)

GOOD = """\
default_route = "big"

[daemon]
socket = "/run/inferd/inferd.sock"
socket_group = "inferd"
log_format = "json"
log_level = "debug"
drain_timeout_s = 5
write_timeout_s = 2.5
max_connections = 100

[backends.fake]
kind = "mock"
token_ms = 1

[backends.local]
kind = "libllama"
model = "/models/a.gguf"
gpu_layers = "all"
parallel = 2

[backends.remote]
kind = "openai_compat"
base_url = "http://localhost:8080"
api_key_file = "/etc/key"
headers = { "X-Team" = "blue" }

[routes.small]
backends = ["fake"]

[routes."qwen/72b"]
backends = ["local", "remote"]
aliases = ["big"]
active_permits = 3
queue_depth = 10
max_wait_ms = 2000
"""


KINDS = "mock, libllama, llama_server, openai_compat, agent"


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "config.toml")
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_whole_configuration() -> None:
    config = parse_config(GOOD)
    assert config.default_route == "big"
    assert config.daemon.drain_timeout_s == 5.0
    assert config.backends == {
        "fake": MockConfig(token_ms=1.0),
        "local": LibllamaConfig(model="/models/a.gguf", gpu_layers="all", parallel=2),
        "remote": OpenAICompatConfig(
            base_url="http://localhost:8080", api_key_file="/etc/key", headers={"X-Team": "blue"}
        ),
    }
    assert config.routes["qwen/72b"] == RouteConfig(
        backends=["local", "remote"],
        aliases=["big"],
        active_permits=3,
        queue_depth=10,
        max_wait_ms=2000,
    )


def test_an_empty_file_is_a_configuration() -> None:
    assert parse_config("") == Config()


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    assert mistakes("""\
default_rout = "x"
[daemon]
log_level = "loud"
max_connections = 0
drain_timeout_s = "long"
[backends.a]
kind = "mok"
[backends.b]
token_ms = 1
[backends.c]
kind = "libllama"
paralel = 3
[backends.d]
kind = "mock"
slots = 0
[routes.r]
backends = []
queue_depth = -1
""") == [
        "line 1: default_rout: unknown key; did you mean `default_route`?",
        "line 3: daemon.log_level: Invalid enum value 'loud'; one of debug, info, warning, error",
        "line 4: daemon.max_connections: Expected `int` >= 1",
        "line 5: daemon.drain_timeout_s: Expected `float`, got `str`",
        f"line 7: backends.a.kind: 'mok' is none of {KINDS}",
        f"line 8: backends.b.kind: is missing; one of {KINDS}",
        "line 10: backends.c.model: is missing",
        "line 12: backends.c.paralel: unknown key; did you mean `parallel`?",
        "line 15: backends.d.slots: Expected `int` >= 1",
        "line 17: routes.r.backends: Expected `array` of length >= 1",
        "line 18: routes.r.queue_depth: Expected `int` >= 0",
    ]


def test_names_that_do_not_meet() -> None:
    assert mistakes("""\
default_route = "none"
[backends.a]
kind = "mock"
[routes.r]
backends = ["a", "b"]
[routes.s]
backends = ["a"]
aliases = ["r", "t"]
[routes.u]
backends = ["a"]
aliases = ["t"]
""") == [
        "line 1: default_route: no route 'none'; there is r, s, u",
        "line 5: routes.r.backends[1]: no backend 'b'; there is a",
        "line 8: routes.s.aliases: 'r' is a route already",
        "line 11: routes.u.aliases: 't' is an alias of 's' already",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("daemon = 3", "line 1: daemon: must be a table, not a number"),
        ('daemon = "x"', "line 1: daemon: must be a table, not a string"),
        ("backends = []", "line 1: backends: must be a table, not a list"),
        ("backends.a = true", "line 1: backends.a: must be a table, not a boolean"),
        (
            "[daemon]\nsocket = 2020-01-01",
            "line 2: daemon.socket: Expected `str | null`, got `date`",
        ),
        ("[daemon]\nwrite_timeout_s = 0", "line 2: daemon.write_timeout_s: Expected `float` > 0.0"),
        ("[daemon]\nwrite_timeout_s = nan", "line 2: daemon.write_timeout_s: Expected `float`"),
        ("[daemon]\ndrain_timeout_s = inf", "line 2: daemon.drain_timeout_s: Expected `float`"),
        ("[daemon]\nmax_connections = 1.5", "line 2: daemon.max_connections: Expected `int`"),
        (
            '[backends."a b"]\nkind = "mock"',
            "line 1: backends.a b: Expected `str` matching regex",
        ),
        (
            '[backends."../x"]\nkind = "mock"',
            "line 1: backends.../x: Expected `str` matching regex",
        ),
        (
            '[backends."a\\n"]\nkind = "mock"',
            "backends.a\n: Expected `str` matching regex",
        ),
        (
            '[backends.a]\nkind = "mock"\nmax_tokens = 99999999999999999999',
            "line 3: backends.a.max_tokens: ",
        ),
        (
            '[backends.a]\nkind = "openai_compat"\nheaders = { a = 1 }',
            "line 3: backends.a.headers: Expected `str`, got `int`",
        ),
        ("x = 1\nx = 2", "is not TOML: Cannot overwrite a value"),
        ("[daemon\n", "is not TOML: "),
        ("x = " + "[" * 5000 + "]" * 5000, "nests too deep"),
        ("x = " + "9" * 5000, "is not TOML: "),
        ("\0", "is not TOML: "),
    ],
)
def test_one_mistake(text: str, said: str) -> None:
    (found,) = mistakes(text)
    assert said in found


def test_the_error_names_the_file_and_counts() -> None:
    with pytest.raises(ConfigError, match=r"^etc/x.toml: 1 mistake\n  line 1: a: unknown key$"):
        parse_config("a = 1", "etc/x.toml")


def test_a_mistake_never_shows_a_secret() -> None:
    text = '[backends.a]\nkind = "openai_compat"\napi_keys = "sk-1"\napi_key = ["sk-2"]\n'
    text += 'headers = { Authorization = ["Bearer sk-3"] }\n'
    found = mistakes(text)
    assert len(found) == 3
    assert "sk-" not in "".join(found)


def test_printing_hides_secrets_and_nothing_else() -> None:
    text = """\
[backends.api_key]
kind = "openai_compat"
base_url = "https://user:sk-1@host:8080/path?token=sk-2"
api_key = "sk-3"
headers = { Authorization = "Bearer sk-4" }
[backends.headers]
kind = "mock"
not_ready = "api_key"
"""
    printed = render_config(msgspec.convert(tomllib.loads(text), Config))
    assert "sk-" not in printed
    shown = msgspec.json.decode(printed)
    assert shown["backends"]["api_key"]["base_url"] == "https://<secret>@host:8080/path?<secret>"
    assert shown["backends"]["api_key"]["headers"] == {"Authorization": "<secret>"}
    assert shown["backends"]["headers"]["not_ready"] == "api_key"
    assert shown["daemon"]["max_connections"] == 4096


def test_what_is_printed_is_what_was_read() -> None:
    config = parse_config(GOOD.replace('{ "X-Team" = "blue" }', "{}"))
    assert msgspec.json.decode(render_config(config), type=Config) == config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "is not valid UTF-8"),
        (b"#" * 1_048_577, "is over 1048576 bytes"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_config(path)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    assert load_config(path) == parse_config(GOOD)


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    assert find_config_file({"INFERD_CONFIG": "/named.toml"}) == Path("/named.toml")
    xdg = tmp_path / "xdg" / "inferd" / "config.toml"
    home = tmp_path / ".config" / "inferd" / "config.toml"
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert find_config_file(environ) is None
    for path in (xdg, home):
        path.parent.mkdir(parents=True)
        path.touch()
    assert find_config_file(environ) == xdg
    assert find_config_file({"HOME": str(tmp_path)}) == home
    assert find_config_file({**environ, "INFERD_CONFIG": ""}) == xdg


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every directory")
def test_a_directory_that_may_not_be_entered_holds_no_file(tmp_path: Path) -> None:
    (tmp_path / "inferd").mkdir(mode=0)
    assert find_config_file({"XDG_CONFIG_HOME": str(tmp_path)}) is None
