"""The boot spec: fields, mistakes by their field, the key of an instance, and no secret shown."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.engines.llama_server.boot_spec import (
    BootSpec,
    BootSpecError,
    is_local,
    normalise,
)
from inferd_daemon.engines.llama_server.flag_table import OWNER, REFUSED

MODEL = "/models/Qwen3-0.6B.Q4_K_M.gguf"


def _mistakes(raw: dict[str, Any], **options: bool) -> list[str]:
    with pytest.raises(BootSpecError) as caught:
        normalise(raw, **options)
    assert caught.value.code == "invalid_request"
    for name, _ in caught.value.mistakes[:3]:
        assert f"`{name}`" in caught.value.message
    return [name for name, _ in caught.value.mistakes]


def test_the_least_spec() -> None:
    spec = normalise({"model": MODEL})
    assert spec.model_identity == "Qwen3-0.6B.Q4_K_M"
    assert (spec.port, spec.host, spec.execution_surface) == (None, None, "local_subprocess")
    assert (spec.ready_timeout_ms, spec.stop_timeout_ms) == (60_000, 5_000)
    assert is_local(spec)


def test_every_field() -> None:
    spec = normalise(
        {
            "binary_path": "/opt/llama-server",
            "launcher_args": ["--serve"],
            "model": "/m//a/./b.gguf",
            "mmproj": "/m/p.gguf",
            "alias": "b",
            "host": "localhost",
            "port": 0,
            "api_prefix": "llm/",
            "ctx_size": 4096,
            "gpu_layers": "all",
            "threads": 2,
            "threads_batch": 2,
            "threads_http": 2,
            "parallel": 2,
            "flash_attn": True,
            "embeddings": True,
            "pooling": "mean",
            "api_key": "k-1",
            "timeout_seconds": 30,
            "ready_timeout_ms": 1,
            "readiness_interval_ms": 1,
            "health_interval_ms": 1,
            "stop_timeout_ms": 1,
            "execution_surface": {"surface_kind": "local_subprocess"},
            "environment": {"CUDA_VISIBLE_DEVICES": "0"},
            "extra_args": ["--cache-reuse", "256"],
            "metadata": {"any": ["thing"]},
        }
    )
    assert spec.model == "/m/a/b.gguf"
    assert (spec.host, spec.api_prefix, spec.flash_attn) == ("127.0.0.1", "/llm", "on")
    assert spec.model_identity == "b"


def test_null_means_left_out() -> None:
    assert normalise({"model": MODEL, "port": None, "pooling": None}) == normalise({"model": MODEL})


@pytest.mark.parametrize(
    ("given_fields", "named"),
    [
        ({"model": ""}, "model"),
        ({"model": "relative.gguf"}, "model"),
        ({"model": "/a\nb"}, "model"),
        ({"model": 7}, "model"),
        ({"mmproj": "p.gguf"}, "mmproj"),
        ({"modle": "x"}, "modle"),
        ({"binary_path": "bin/llama-server"}, "binary_path"),
        ({"alias": "a,b"}, "alias"),
        ({"host": "127.0.0.1"}, "host"),
        ({"host": "0.0.0.0", "port": 1}, "host"),
        ({"host": "::", "port": 1}, "host"),
        ({"host": "10.0.0.1", "port": 1}, "host"),
        ({"host": "example.org", "port": 1}, "host"),
        ({"host": "127.0.0.1,0.0.0.0", "port": 1}, "host"),
        ({"host": "/run/x.sock", "port": 1}, "host"),
        ({"port": 65_536}, "port"),
        ({"port": -1}, "port"),
        ({"port": "80"}, "port"),
        ({"port": True}, "port"),
        ({"api_prefix": "/a/../b"}, "api_prefix"),
        ({"api_prefix": "/a b"}, "api_prefix"),
        ({"ctx_size": -1}, "ctx_size"),
        ({"gpu_layers": "most"}, "gpu_layers"),
        ({"gpu_layers": -1}, "gpu_layers"),
        ({"threads": 0}, "threads"),
        ({"parallel": 0}, "parallel"),
        ({"flash_attn": "maybe"}, "flash_attn"),
        ({"pooling": "sum"}, "pooling"),
        ({"reranking": True, "embeddings": True}, "embeddings"),
        ({"reranking": True, "pooling": "mean"}, "pooling"),
        ({"embeddings": True, "pooling": "rank"}, "pooling"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": "a,b"}, "api_key"),
        ({"api_key": "a b"}, "api_key"),
        ({"api_key": "k", "api_key_file": "/k"}, "api_key_file"),
        ({"ready_timeout_ms": 0}, "ready_timeout_ms"),
        ({"stop_timeout_ms": "5s"}, "stop_timeout_ms"),
        ({"execution_surface": "ssh_exec"}, "execution_surface"),
        ({"execution_surface": {"surface_kind": "ssh_exec"}}, "execution_surface"),
        ({"execution_surface": {}}, "execution_surface"),
        ({"environment": {"LLAMA_ARG_PORT": "1"}}, "environment.LLAMA_ARG_PORT"),
        ({"environment": {"INFERD_INSTANCE": "1"}}, "environment.INFERD_INSTANCE"),
        ({"environment": {"A=B": "1"}}, "environment.A=B"),
        ({"environment": {"A": "\0"}}, "environment.A"),
        ({"environment": {"A": 1}}, "environment"),
        ({"extra_args": ["-c", "1"]}, "extra_args[0]"),
        ({"extra_args": ["--cache-reuse", "1", "--ctx_size", "1"]}, "extra_args[2]"),
        ({"extra_args": ["--port=1"]}, "extra_args[0]"),
        ({"extra_args": ["--api-key", "x"]}, "extra_args[0]"),
        ({"extra_args": ["--agent"]}, "extra_args[0]"),
        ({"extra_args": ["\0"]}, "extra_args[0]"),
        ({"extra_args": ["--chat-template", "sk-1"], "api_key": "sk-1"}, "extra_args[1]"),
        ({"launcher_args": ["key=sk-1"], "api_key": "sk-1"}, "launcher_args[0]"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_mistake_names_its_field(given_fields: dict[str, Any], named: str) -> None:
    assert _mistakes({"model": MODEL} | given_fields) == [named]


def test_all_mistakes_are_listed() -> None:
    wrong = {"port": -1, "host": "0.0.0.0", "bogus": 1, "pooling": "sum", "extra_args": ["-m", "x"]}
    assert set(_mistakes(wrong)) == {"model", "port", "host", "bogus", "pooling", "extra_args[0]"}


def test_ssh_is_refused_by_name() -> None:
    with pytest.raises(BootSpecError, match="ssh_exec"):
        normalise({"model": MODEL, "execution_surface": "ssh_exec"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_hosts(host: str) -> None:
    assert is_local(normalise({"model": MODEL, "host": host, "port": 0}))


def test_remote_only_where_allowed() -> None:
    spec = normalise({"model": MODEL, "host": "0.0.0.0", "port": 0}, allow_remote=True)
    assert not is_local(spec)


@pytest.mark.parametrize("flag", sorted(OWNER | REFUSED))
def test_no_owned_or_refused_flag_passes(flag: str) -> None:
    assert _mistakes({"model": MODEL, "extra_args": [flag, "1"]}) == ["extra_args[0]"]


def test_the_key_never_shows() -> None:
    spec = normalise({"model": MODEL, "api_key": "sk-very-secret"})
    assert "sk-very-secret" not in repr(spec)
    assert "sk-very-secret" not in str(spec.api_key)
    assert "sk-very-secret" not in spec.instance_key()
    with pytest.raises(BootSpecError) as caught:
        normalise({"model": MODEL, "api_key": "sk very secret"})
    assert "very secret" not in str(caught.value)
    assert "very secret" not in str(caught.value.details)


CHANGES: list[dict[str, Any]] = [
    {"model": "/models/other.gguf"},
    {"mmproj": "/p.gguf"},
    {"alias": "x"},
    {"port": 0},
    {"port": 1},
    {"port": 0, "host": "::1"},
    {"api_prefix": "/x"},
    {"ctx_size": 1},
    {"gpu_layers": 0},
    {"gpu_layers": "auto"},
    {"threads": 1},
    {"threads_batch": 1},
    {"threads_http": 1},
    {"parallel": 1},
    {"flash_attn": "on"},
    {"embeddings": True},
    {"reranking": True},
    {"pooling": "cls"},
    {"api_key": "a"},
    {"api_key": "b"},
    {"api_key_file": "/k"},
    {"timeout_seconds": 1},
    {"environment": {"A": "1"}},
    {"environment": {"A": "2"}},
    {"launcher_args": ["--cache-prompt"]},
    {"extra_args": ["--cache-prompt"]},
    {"binary_path": "/bin/x"},
]


def test_everything_that_changes_the_process_changes_the_key() -> None:
    keys = {normalise({"model": MODEL} | change).instance_key() for change in [{}, *CHANGES]}
    assert len(keys) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "same",
    [
        {"metadata": {"run": 1}},
        {"model_identity": "other"},
        {"ready_timeout_ms": 5, "stop_timeout_ms": 6},
        {"model": "/models//Qwen3-0.6B.Q4_K_M.gguf"},
        {"api_prefix": "/"},
        {"execution_surface": "local_subprocess"},
    ],
)
def test_what_does_not_change_the_process_leaves_the_key(same: dict[str, Any]) -> None:
    assert normalise({"model": MODEL} | same).instance_key() == (
        normalise({"model": MODEL}).instance_key()
    )


def test_the_key_is_readable_short_and_fit_for_a_path() -> None:
    key = normalise({"model": "/m/Überlanger Name, sehr sehr sehr lang!.gguf"}).instance_key()
    assert key.startswith("berlanger-name-sehr")
    assert len(key) <= 65
    assert key.replace("-", "").isalnum()


def test_the_key_is_pinned() -> None:
    """A daemon restores leases of the version before it: the key may not drift."""
    spec = normalise({"model": "/m/a.gguf", "ctx_size": 1, "environment": {"B": "1", "A": "2"}})
    assert spec.instance_key() == "a-f5347e319e81114ac3ec89249fdb7d72"


def test_privileged_fields() -> None:
    assert normalise({"model": MODEL, "ctx_size": 1}).privileged() == []
    spec = normalise({"model": MODEL, "binary_path": "/x", "environment": {"LD_PRELOAD": "/y"}})
    assert spec.privileged() == ["binary_path", "environment"]


@given(
    st.fixed_dictionaries(
        {"model": st.just(MODEL)},
        optional={
            "ctx_size": st.integers(0, 2**31 - 1),
            "gpu_layers": st.integers(0, 999) | st.sampled_from(["auto", "all"]),
            "port": st.integers(0, 65_535),
            "api_prefix": st.sampled_from(["", "/", "a", "/a/b/"]),
            "flash_attn": st.sampled_from(["on", "off", "auto", True, False]),
            "api_key": st.sampled_from(["k", "K2"]),
            "embeddings": st.booleans(),
            "metadata": st.dictionaries(st.text(), st.integers() | st.text()),
            "environment": st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from("xy")),
        },
    )
)
def test_normalising_again_changes_nothing(raw: dict[str, Any]) -> None:
    spec = normalise(raw)
    kept = msgspec.json.decode(msgspec.json.encode(spec.to_json()))
    again = normalise(kept)
    assert again == spec
    assert again.instance_key() == spec.instance_key()


@given(
    st.dictionaries(
        st.sampled_from([*BootSpec.__struct_fields__, "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    )
)
def test_whatever_is_given_a_spec_or_named_mistakes(raw: dict[str, Any]) -> None:
    assert _named_mistakes(raw) <= {*BootSpec.__struct_fields__, "x"}


def _named_mistakes(raw: dict[str, Any]) -> set[str]:
    try:
        normalise(raw)
    except BootSpecError as error:
        return {name.partition(".")[0].partition("[")[0] for name, _ in error.mistakes}
    return set()
