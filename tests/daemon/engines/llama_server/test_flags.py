"""What a boot spec becomes for the real binary: argv, environment, addresses; no secret in argv."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.llama_server.address import (
    base_url,
    headers,
    health_url,
    root_url,
    socket_endpoint,
    tcp_endpoint,
)
from inferd_daemon.engines.llama_server.boot_spec import normalise
from inferd_daemon.engines.llama_server.flag_table import FIELD_FLAGS, REFUSED, option, spelled
from inferd_daemon.engines.llama_server.flags import render_argv, render_environment
from inferd_daemon.engines.secret import Secret
from tests.support.llama_server import help_text

MODEL = "/m/a.gguf"
SOCKET = Endpoint(uds=Path("/run/rt/a.sock"))


def _argv(given_fields: dict[str, Any], endpoint: Endpoint = SOCKET) -> list[str]:
    return render_argv(normalise({"model": MODEL} | given_fields), ["llama-server"], endpoint)


@pytest.mark.parametrize(
    ("given_fields", "rendered"),
    [
        ({}, []),
        ({"mmproj": "/p"}, ["--mmproj", "/p"]),
        ({"alias": "x"}, ["--alias", "x"]),
        ({"ctx_size": 0}, ["--ctx-size", "0"]),
        ({"gpu_layers": 0}, ["--gpu-layers", "0"]),
        ({"gpu_layers": "auto"}, ["--gpu-layers", "auto"]),
        ({"threads": 2}, ["--threads", "2"]),
        ({"threads_batch": 2}, ["--threads-batch", "2"]),
        ({"threads_http": 2}, ["--threads-http", "2"]),
        ({"parallel": 2}, ["--parallel", "2"]),
        ({"flash_attn": False}, ["--flash-attn", "off"]),
        ({"embeddings": True}, ["--embeddings"]),
        ({"embeddings": False}, []),
        ({"reranking": True}, ["--reranking", "--pooling", "rank"]),
        ({"pooling": "last"}, ["--pooling", "last"]),
        ({"timeout_seconds": 9}, ["--timeout", "9"]),
        ({"api_key_file": "/k"}, ["--api-key-file", "/k"]),
        ({"api_key": "sk-1"}, []),
        ({"metadata": {"a": 1}, "environment": {"A": "1"}, "ready_timeout_ms": 5}, []),
    ],
)
def test_fields(given_fields: dict[str, Any], rendered: list[str]) -> None:
    expected = ["llama-server", "--model", MODEL, *rendered, "--host", "/run/rt/a.sock"]
    assert _argv(given_fields) == expected


@pytest.mark.parametrize(("alias", "named"), [("x", "x"), (None, "qwen")])
def test_answers_name_the_model_and_not_its_file(alias: str | None, named: str) -> None:
    spec = normalise({"model": MODEL} | ({} if alias is None else {"alias": alias}))
    argv = render_argv(spec, ["llama-server"], SOCKET, served_name="qwen")
    assert argv[argv.index(MODEL) + 1 : argv.index("--host")] == ["--alias", named]


def test_order_of_the_command_line() -> None:
    spec = normalise(
        {"model": MODEL, "launcher_args": ["x.py"], "extra_args": ["--no-warmup"], "port": 0}
        | {"api_prefix": "/llm"}
    )
    argv = render_argv(
        spec, ["python3"], tcp_endpoint(spec, 4711, None), slot_save_path=Path("/var/kv")
    )
    assert argv == [
        *("python3", "x.py", "--model", MODEL, "--host", "127.0.0.1", "--port", "4711"),
        *("--api-prefix", "/llm", "--slot-save-path", "/var/kv", "--no-warmup"),
    ]


def flags_in_help(text: str) -> set[str]:
    """Every flag that a `--help` text of llama-server declares: spellings come first on a line."""
    words = [word for line in text.splitlines() if line.startswith("-") for word in line.split()]
    flags = {word.rstrip(",") for word in words if word.startswith("-")}
    return {flag for flag in flags if flag.lstrip("-")[:1].isalpha()}


def test_the_real_binary_knows_every_flag_that_is_rendered_or_refused() -> None:
    known = flags_in_help(help_text())
    rendered = {flag for flags in FIELD_FLAGS.values() for flag in flags}
    assert rendered <= known
    other_versions = {"--hf-repo-v", "-hfv", "-hfrv", "--hf-file-v", "-hffv", "--license"}
    assert set(REFUSED) - known <= other_versions


def test_environment() -> None:
    spec = normalise({"model": MODEL, "environment": {"GGML_NO_BACKTRACE": "0", "A": "1"}})
    inherited = {
        "PATH": "/bin",
        "LLAMA_ARG_PORT": "1",
        "LLAMA_API_KEY": "other",
        "HF_TOKEN": "t",
        "OPENAI_API_KEY": "sk-other",
        "NOTIFY_SOCKET": "/n",
        "LISTEN_FDS": "1",
        "INFERD_SOCKET": "/s",
    }
    mark = {"INFERD_INSTANCE": "i"}
    environment = render_environment(spec, inherited, Secret("sk-1"), mark)
    assert environment["PATH"] == "/bin"
    assert environment["A"] == "1"
    assert environment["GGML_NO_BACKTRACE"] == "0"
    assert environment["LLAMA_API_KEY"] == "sk-1"
    assert environment["INFERD_INSTANCE"] == "i"
    assert not set(environment) & {*inherited} - {"PATH", "LLAMA_API_KEY"}


def test_a_key_file_keeps_the_key_out_of_the_environment() -> None:
    spec = normalise({"model": MODEL, "api_key_file": "/k"})
    assert "LLAMA_API_KEY" not in render_environment(spec, {}, Secret("sk-1"), {})


def test_addresses() -> None:
    spec = normalise({"model": MODEL, "api_prefix": "/llm"})
    unix = socket_endpoint(spec, Path("/run/a.sock"), Secret("sk-1"))
    assert root_url(unix) == "http://localhost/llm"
    assert base_url(unix) == "http://localhost/llm/v1"
    assert health_url(unix) == "http://localhost/llm/health"
    assert headers(unix) == {"Authorization": "Bearer sk-1"}
    assert "sk-1" not in repr(unix)
    spec = normalise({"model": MODEL, "host": "::1", "port": 0})
    assert base_url(tcp_endpoint(spec, 80, None)) == "http://[::1]:80/v1"
    assert headers(tcp_endpoint(spec, 80, None)) == {}


@pytest.mark.parametrize("path", ["/run/a", "/" + "x" * 102 + ".sock", "/" + "ü" * 51 + ".sock"])
def test_unfit_socket_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"must end in \.sock"):
        socket_endpoint(normalise({"model": MODEL}), Path(path), None)


def test_the_longest_socket_path() -> None:
    path = Path("/" + "x" * 101 + ".sock")
    assert socket_endpoint(normalise({"model": MODEL}), path, None).uds == path


@pytest.mark.parametrize(
    ("argument", "flag"),
    [("--ctx_size", "--ctx-size"), ("--port=1", "--port"), ("-c", "-c"), ("a_b", "a_b")],
)
def test_spellings(argument: str, flag: str) -> None:
    assert spelled(argument) == flag


def test_option_takes_the_last() -> None:
    arguments = ["-ctk", "q8_0", "--x", "--cache_type_k", "f32"]
    assert option(arguments, "-ctk", "--cache-type-k") == "f32"
    assert option(arguments, "-ctv") is None
    assert option(["-ctv"], "-ctv") is None


@given(st.from_regex(r"sk-[A-Za-z0-9_-]{8,40}", fullmatch=True), st.booleans())
def test_no_key_ever_stands_in_argv(key: str, over_tcp: bool) -> None:
    raw: dict[str, Any] = {"model": MODEL, "api_key": key, "alias": "x"}
    spec = normalise(raw | ({"port": 0} if over_tcp else {}))
    endpoint = (
        tcp_endpoint(spec, 1, spec.api_key)
        if over_tcp
        else socket_endpoint(spec, Path("/run/a.sock"), spec.api_key)
    )
    assert not any(key in argument for argument in render_argv(spec, ["llama-server"], endpoint))
