"""llama.cpp's last words become one typed reason, in which they still can be read."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.engines.failures import (
    MAX_REASON_CHARS,
    PASSING,
    Cause,
    classify,
    describe_exit,
)

STAMP = "0.00.003.759 E "

TEXTS = [
    (
        "gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)",
        Cause.MODEL_MISSING,
    ),
    (
        "gguf_init_from_file: failed to open GGUF file '/m.gguf' (Permission denied)",
        Cause.MODEL_MISSING,
    ),
    ("gguf_init_from_reader: failed to read magic", Cause.MODEL_CORRUPT),
    (
        "gguf_init_from_reader: invalid magic characters: 'GGML', expected 'GGUF'",
        Cause.MODEL_CORRUPT,
    ),
    ("gguf_init_from_reader: failed to read key-value pairs", Cause.MODEL_CORRUPT),
    (
        "gguf_init_from_reader: number of key value pairs is -1 but must be in [0, 1000]",
        Cause.MODEL_CORRUPT,
    ),
    (
        "tensor 'a' data is not within the file bounds, model is corrupted or incomplete",
        Cause.MODEL_CORRUPT,
    ),
    (
        "this GGUF file is version 255 but this software only supports up to version 3",
        Cause.MODEL_UNSUPPORTED,
    ),
    ("error loading model: unknown model architecture: 'lxama'", Cause.MODEL_UNSUPPORTED),
    ("srv load_model: failed to load multimodal model, '/p.gguf'", Cause.PROJECTOR_UNUSABLE),
    ("srv load_model: failed to load lora adapter '/l.gguf'", Cause.ADAPTER_UNUSABLE),
    (
        "srv start: couldn't bind HTTP server socket, hostname: H, port: P",
        Cause.ADDRESS_UNUSABLE,
    ),
    ("error: invalid argument: --bogus-flag", Cause.BAD_OPTION),
    ('error while handling argument "-c": stoi', Cause.BAD_OPTION),
    ('error while handling environment variable "LLAMA_ARG_CTX_SIZE": stoi', Cause.BAD_OPTION),
    (
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 195.38 MB)",
        Cause.OUT_OF_MEMORY,
    ),
    ("llama_init_from_model: failed to allocate buffer for kv cache", Cause.OUT_OF_MEMORY),
]


@pytest.mark.parametrize(("text", "cause"), TEXTS, ids=[cause.value for _, cause in TEXTS])
def test_the_text_decides(text: str, cause: Cause) -> None:
    lines = [
        "0.00.000.100 I srv init: loading model",
        STAMP + text,
        STAMP + "llama_model_load_from_file_impl: failed to load model",
        STAMP + "srv llama_server: exiting due to model loading error",
    ]
    found = classify(1, lines)
    assert found.cause is cause
    assert text in found.reason
    assert STAMP not in found.reason


def test_a_missing_projector_is_not_a_missing_model() -> None:
    lines = [
        "gguf_init_from_file: failed to open GGUF file '/p.gguf' (No such file or directory)",
        "srv load_model: failed to load multimodal model, '/p.gguf'",
    ]
    assert classify(1, lines).cause is Cause.PROJECTOR_UNUSABLE


def test_a_kill_is_a_kill_whatever_was_logged() -> None:
    found = classify(-signal.SIGKILL, ["failed to allocate something an hour ago"])
    assert found.cause is Cause.KILLED
    assert found.passing


def test_a_segfault_is_a_crash() -> None:
    found = classify(-signal.SIGSEGV, ["all is well"])
    assert (found.cause, found.passing) == (Cause.CRASHED, True)
    assert "SIGSEGV" in found.reason


def test_an_assertion_tells_itself() -> None:
    found = classify(-signal.SIGABRT, ["x.cpp:7: GGML_ASSERT(nread <= size) failed"])
    assert found.cause is Cause.CRASHED
    assert "nread <= size" in found.reason


def test_the_stub_tells_what_it_could_not_run() -> None:
    found = classify(127, ["exec stub: cannot run /no/such: No such file or directory"])
    assert (found.cause, found.passing) == (Cause.NOT_STARTED, False)
    assert "/no/such" in found.reason


@given(st.integers(-64, 255), st.lists(st.text(max_size=2000), max_size=5))
def test_any_end_has_a_reason_of_bounded_length(returncode: int, lines: list[str]) -> None:
    found = classify(returncode, lines)
    assert 0 < len(found.reason) <= MAX_REASON_CHARS
    assert found.passing == (found.cause in PASSING)


def test_exits_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-signal.SIGTERM) == "SIGTERM"
    assert describe_exit(-63).startswith("SIG") or describe_exit(-63) == "signal 63"
