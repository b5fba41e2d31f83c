"""The estimate against a real llama-server's own figures, and by hand where it is too big."""

import os
import re
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.engines.llama_server.address import headers, root_url
from inferd_daemon.engines.llama_server.boot_spec import BootSpec, normalise
from inferd_daemon.engines.llama_server.engine import LlamaServerEngine
from inferd_daemon.engines.llama_server.gguf import GgufHead, Value, read_head
from inferd_daemon.engines.llama_server.memory_estimate import MIB, MemoryEstimate, estimate
from inferd_daemon.supervision.processes.process import spawn
from inferd_daemon.supervision.runtimes.readiness import wait_ready
from tests.support.llama_server import llama_server_path
from tests.support.models import build_embedding_model, build_generate_model, build_multimodal_model
from tests.support.processes import until


def _spec(**fields: object) -> BootSpec:
    return normalise({"model": "/m.gguf"} | fields)


def _head(architecture: str, tokens: int = 0, **values: Value) -> GgufHead:
    plain = {f"{architecture}.{name.replace('__', '.')}": value for name, value in values.items()}
    lengths = {"tokenizer.ggml.tokens": tokens}
    return GgufHead(
        3, 1, {"general.architecture": architecture} | plain, lengths, 1000 * MIB, whole=True
    )


LLAMA_8B = _head(
    "llama",
    tokens=128_256,
    block_count=32,
    context_length=131_072,
    embedding_length=4096,
    feed_forward_length=14_336,
    attention__head_count=32,
    attention__head_count_kv=8,
)


def _cache(head: GgufHead, **fields: object) -> float:
    return estimate(_spec(**fields), head).cache / MIB


def test_a_plain_model() -> None:
    # 2 (K and V) * 8 heads * 128 * 2 bytes * 32 layers are 128 KiB a cell.
    assert _cache(LLAMA_8B, ctx_size=8192, parallel=1) == 1024
    assert _cache(LLAMA_8B, ctx_size=8192, parallel=4) == 1024
    assert _cache(LLAMA_8B, ctx_size=8192) == 1024
    assert _cache(LLAMA_8B) == 16 * 1024
    assert _cache(LLAMA_8B, ctx_size=0) == 16 * 1024


def test_cells_are_padded_for_each_slot() -> None:
    assert _cache(LLAMA_8B, ctx_size=1000, parallel=1) == 128
    assert _cache(LLAMA_8B, ctx_size=1000, parallel=3) == 512 / 1024 * 3 * 128
    assert _cache(LLAMA_8B, ctx_size=1000, parallel=3, extra_args=["--kv-unified"]) == 128


@pytest.mark.parametrize(
    ("arguments", "mib"),
    [
        (["-ctk", "q8_0", "-ctv", "q8_0"], 544),
        (["--cache-type-k", "q8_0"], 768 + 16),
        (["--cache_type_v", "f32"], 1536),
        (["-ctk", "nonsense"], 1024),
    ],
)
def test_types_of_the_cache(arguments: list[str], mib: float) -> None:
    assert _cache(LLAMA_8B, ctx_size=8192, parallel=1, extra_args=arguments) == mib


def test_layers_with_a_window_hold_little() -> None:
    gemma = _head(
        "gemma3",
        block_count=12,
        embedding_length=1024,
        attention__head_count=4,
        attention__head_count_kv=1,
        attention__key_length=256,
        attention__value_length=256,
        attention__sliding_window=1024,
    )
    cell = 256 * 2 * 2 / MIB
    # Two of twelve layers see everything, ten 1024 + 512 cells.
    assert _cache(gemma, ctx_size=32_768, parallel=1) == (2 * 32_768 + 10 * 1536) * cell
    # A context below the window is no larger for it.
    assert _cache(gemma, ctx_size=512, parallel=1) == 12 * 512 * cell
    pattern: dict[str, Value] = {
        "gemma3.attention.sliding_window_pattern": [*[True] * 6, *[False] * 6]
    }
    told = gemma._replace(values=gemma.values | pattern)
    assert _cache(told, ctx_size=32_768, parallel=1) == (6 * 32_768 + 6 * 1536) * cell
    unknown = _head(
        "brandnew",
        block_count=1,
        attention__head_count=1,
        attention__key_length=256,
        attention__value_length=256,
        attention__sliding_window=1024,
    )
    assert _cache(unknown, ctx_size=32_768, parallel=1) == 32_768 * cell


def test_recurrent_layers_hold_a_state_for_each_slot() -> None:
    hybrid = _head(
        "hybrid",
        block_count=4,
        attention__head_count=2,
        attention__head_count_kv=[0, 0, 0, 2],
        attention__key_length=64,
        attention__value_length=64,
        ssm__inner_size=1024,
        ssm__state_size=128,
        ssm__conv_kernel=4,
        ssm__group_count=1,
    )
    attention = 4096 * 2 * 64 * 2 * 2
    state = 3 * (3 * (1024 + 256) + 128 * 1024) * 4
    one = estimate(_spec(ctx_size=4096, parallel=1), hybrid).cache
    two = estimate(_spec(ctx_size=4096, parallel=2), hybrid).cache
    assert (one, two) == (attention + state, attention + 2 * state)


def test_flash_attention_saves_scores() -> None:
    on = estimate(_spec(ctx_size=32_768, parallel=1, flash_attn="on"), LLAMA_8B).compute
    off = estimate(_spec(ctx_size=32_768, parallel=1, flash_attn="off"), LLAMA_8B).compute
    assert off - on == 32_768 * 512 * (4 * 33 - 2)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "block_count",
                "context_length",
                "embedding_length",
                "attention.head_count",
                "attention.head_count_kv",
                "attention.key_length",
                "attention.sliding_window",
                "full_attention_interval",
                "ssm.inner_size",
                "ssm.conv_kernel",
            ]
        ),
        st.integers(-(2**63), 2**64) | st.lists(st.integers(0, 9), max_size=5) | st.floats(),
    ),
    st.integers(0, 2**31 - 1),
    st.integers(1, 256),
)
def test_whatever_a_file_claims_it_is_a_number(
    values: dict[str, Value], context: int, slots: int
) -> None:
    head = _head("x")
    head = head._replace(values=head.values | {f"x.{key}": value for key, value in values.items()})
    assert estimate(_spec(ctx_size=context, parallel=slots), head).total >= head.size_bytes


# -- against the real one ------------------------------------------------------------------

_BUFFERS = {
    "weights": re.compile(r"Mapped model buffer size = +([\d.]+) MiB"),
    "cache": re.compile(r"llama_kv_cache: size = +([\d.]+) MiB"),
    "compute": re.compile(r"sched_reserve: +CPU compute buffer size = +([\d.]+) MiB"),
}


class _Seen:
    """A real server's own figures, after it evaluated a prompt as long as a batch."""

    def __init__(self, told: MemoryEstimate, log: str, resident: int) -> None:
        self.told, self.resident = told, resident
        self.buffers = {
            name: max((float(mib) * MIB for mib in pattern.findall(log)), default=0.0)
            for name, pattern in _BUFFERS.items()
        }


async def _measure(
    tmp_path: Path, model: Path, mmproj: Path | None, fields: dict[str, object]
) -> _Seen:
    raw = {"model": str(model), "extra_args": ["-lv", "5"]} | fields
    if mmproj is not None:
        raw["mmproj"] = str(mmproj)
    spec = normalise(raw)
    told = estimate(spec, read_head(model), None if mmproj is None else read_head(mmproj))
    environment = {"PATH": os.defpath, "INFERD_LLAMA_SERVER": str(llama_server_path())}
    engine = LlamaServerEngine("m", spec, tmp_path / "rt", environment=environment)
    log = tmp_path / "log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    process = spawn(engine.prepare(), log_fd=descriptor)
    os.close(descriptor)
    try:
        with trio.fail_after(60):
            await wait_ready(engine)
            transport = PlainTransport(uds=str(engine.endpoint.uds))
            async with httpx.AsyncClient(
                transport=transport, trust_env=False, timeout=60
            ) as client:
                path = "/v1/embeddings" if spec.embeddings else "/completion"
                text = "hello there " * (20 if spec.embeddings else 60)
                body = {"input": text} if spec.embeddings else {"prompt": text, "n_predict": 2}
                answer = await client.post(
                    root_url(engine.endpoint) + path, json=body, headers=headers(engine.endpoint)
                )
                assert answer.status_code == 200, answer.text
        # The server's log is written by a thread of its own, in order.
        await until(lambda: "stop processing" in _text(log))
        return _Seen(told, _text(log), _resident(process.pid))
    finally:
        await process.kill()
        process.close()
        engine.discard()


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "fields",
    [
        {"ctx_size": 4096, "parallel": 1},
        {"ctx_size": 32_768, "parallel": 4},
        {},
        {
            "ctx_size": 16_384,
            "parallel": 1,
            "extra_args": ["-lv", "5", "-ctk", "q8_0", "-ctv", "q8_0"],
        },
        {"ctx_size": 4096, "parallel": 1, "extra_args": ["-lv", "5", "-ub", "128"]},
    ],
)
async def test_the_parts_and_the_whole_of_a_real_process(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    model = tmp_path / "m.gguf"
    build_generate_model(model, layers=6, feed_forward=1024)
    seen = await _measure(tmp_path, model, None, fields)
    assert seen.told.weights == pytest.approx(seen.buffers["weights"], rel=0.03)
    assert seen.told.cache == pytest.approx(seen.buffers["cache"], rel=0.001)
    assert seen.told.compute == pytest.approx(seen.buffers["compute"], rel=0.1)
    # A long context of which little was used leaves parts of its buffers untouched.
    assert 0.95 < seen.told.total / seen.resident < 1.6


async def test_embeddings_of_a_real_process(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    build_embedding_model(model)
    seen = await _measure(tmp_path, model, None, {"embeddings": True, "parallel": 1})
    assert seen.told.cache == 0
    assert 0.95 < seen.told.total / seen.resident < 1.5


async def test_a_projector_of_a_real_process(tmp_path: Path) -> None:
    model, mmproj = tmp_path / "m.gguf", tmp_path / "p.gguf"
    build_multimodal_model(model, mmproj)
    seen = await _measure(tmp_path, model, mmproj, {"ctx_size": 4096, "parallel": 1})
    assert 0.95 < seen.told.total / seen.resident < 2
