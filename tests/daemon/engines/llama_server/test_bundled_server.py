"""The bundled server's command line: the real one's flags, its defaults, its words for mistakes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.failures import Cause, classify
from inferd_daemon.engines.llama_server.boot_spec import normalise
from inferd_daemon.engines.llama_server.bundled_server import UsageError, configure
from inferd_daemon.engines.llama_server.flags import render_argv

Configure = Callable[..., Any]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Parameters after a command line and an environment."""

    def make(*arguments: str, **environment: str) -> object:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        params = xllamacpp.CommonParams()
        configure(params, list(arguments), os.environ)
        return params

    return make


def test_every_field_of_a_boot_spec(configured: Configure, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# two\none\ntwo\n")
    spec = normalise(
        {
            "model": "/m/a.gguf",
            "mmproj": "/m/p.gguf",
            "alias": "a",
            "api_prefix": "/llm",
            "ctx_size": 4096,
            "gpu_layers": "all",
            "threads": 3,
            "threads_batch": 4,
            "threads_http": 5,
            "parallel": 2,
            "flash_attn": "off",
            "embeddings": True,
            "pooling": "cls",
            "api_key_file": str(keys),
            "timeout_seconds": 7,
            "extra_args": ["-ctk", "q8_0", "--cache_type_v", "q4_0", "-ub", "64", "--no-warmup"],
        }
    )
    endpoint = Endpoint(host="127.0.0.1", port=81)
    params = configured(*render_argv(spec, [], endpoint, slot_save_path=tmp_path))
    assert (params.model.path, params.mmproj.path) == ("/m/a.gguf", "/m/p.gguf")
    assert (params.model_alias, params.api_prefix) == ({"a"}, "/llm")
    assert (params.hostnames, params.port) == (["127.0.0.1"], 81)
    assert (params.n_ctx, params.n_gpu_layers, params.n_parallel) == (4096, -2, 2)
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (3, 4)
    assert (params.n_threads_http, params.timeout_read, params.timeout_write) == (5, 7, 7)
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_CLS
    assert params.embedding
    assert params.api_keys == ["one", "two"]
    assert params.slot_save_path == f"{tmp_path}/"
    assert params.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert params.cache_type_v == xllamacpp.ggml_type.GGML_TYPE_Q4_0
    assert (params.n_ubatch, params.warmup, params.ui) == (64, False, False)


def test_defaults_are_those_of_the_real_server(configured: Configure) -> None:
    params = configured("-m", "/m.gguf", LLAMA_API_KEY="k", LLAMA_ARG_ENDPOINT_METRICS="1")
    assert (params.n_parallel, params.kv_unified) == (4, True)
    assert params.api_keys == ["k"]
    assert params.endpoint_metrics


def test_reranking_pools_by_rank(configured: Configure) -> None:
    params = configured("-m", "/m.gguf", "--reranking")
    assert params.embedding
    assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["-m"],
        [],
        ["-m", "/m", "-c", "many"],
        ["-m", "/m", "-ctk", "q9_9"],
        ["-m", "/m", "-fa", "perhaps"],
        ["-m", "/m", "--pooling", "sum"],
        ["-m", "/m", "--slot-save-path", "/no/such"],
        ["-m", "/m", "--api-key-file", "/no/such"],
    ],
)
def test_mistakes_read_like_the_real_servers(configured: Configure, arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        configured(*arguments)
    assert classify(1, [f"error: {caught.value}"]).cause is Cause.BAD_OPTION
