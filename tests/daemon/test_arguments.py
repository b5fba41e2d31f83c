"""The command line, and what it means without a configuration file."""

from pathlib import Path

import pytest

from inferd_daemon.arguments import parse_arguments, quick_config, with_overrides
from inferd_daemon.config import (
    Config,
    HttpConfig,
    LibllamaConfig,
    MockConfig,
    OpenAICompatConfig,
    RouteConfig,
)


def quick(*arguments: str) -> Config | None:
    return quick_config(parse_arguments(list(arguments)))


def one(name: str, backend: MockConfig | LibllamaConfig | OpenAICompatConfig) -> Config:
    routes = {name: RouteConfig(backends=[name])}
    return Config(default_route=name, backends={name: backend}, routes=routes)


def test_each_flag_is_one_backend_behind_one_route() -> None:
    assert quick() is None
    assert quick("--backend", "mock") == one("mock", MockConfig())
    assert quick("--demo") == one("demo", LibllamaConfig(model="demo"))
    url = "http://127.0.0.1:8080"
    assert quick("--openai", url) == one("openai", OpenAICompatConfig(base_url=url))
    assert quick("--openai", url, "--openai-model", "q") == one(
        "q", OpenAICompatConfig(base_url=url, model="q")
    )


def test_a_model_is_named_after_its_file_and_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "qwen3-8b.gguf")
    assert quick("--model", "qwen3-8b.gguf") == one(
        "qwen3-8b", LibllamaConfig(model=path, alias="qwen3-8b")
    )


def test_the_command_line_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    arguments = parse_arguments(["--socket", "s.sock", "--log-level", "error"])
    daemon = with_overrides(Config(), arguments).daemon
    assert (daemon.socket, daemon.log_level, daemon.log_format) == ("/s.sock", "error", "auto")
    assert with_overrides(Config(), parse_arguments([])) == Config()


def test_http_is_listened_for_where_it_is_asked_for() -> None:
    asked = parse_arguments(["--demo", "--http"])
    config = quick_config(asked)
    assert config is not None
    assert config.http is None
    assert with_overrides(config, asked).http == HttpConfig()
    told = Config(http=HttpConfig(unix="/run/http.sock"))
    assert with_overrides(told, asked).http == told.http
