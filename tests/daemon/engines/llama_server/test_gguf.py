"""GGUF heads: real files as the reference reader sees them, and files that lie."""

import os
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd_daemon.engines.base import EngineFailure
from inferd_daemon.engines.failures import Cause
from inferd_daemon.engines.llama_server.gguf import GgufHead, read_head
from inferd_daemon.models.demo import demo_model_path
from tests.support.models import build_embedding_model, build_multimodal_model, spoil_version

DEMO = demo_model_path()


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _array(key: str, item: int, count: int, values: bytes) -> bytes:
    return _pair(key, 9, struct.pack("<IQ", item, count) + values)


def _file(path: Path, *pairs: bytes, version: int = 3, keys: int | None = None) -> Path:
    count = len(pairs) if keys is None else keys
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 1, count) + b"".join(pairs))
    return path


def _refused(path: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        read_head(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_the_demo_model_as_the_reference_reader_sees_it() -> None:
    head = read_head(DEMO)
    reference = gguf.GGUFReader(DEMO)
    assert head.architecture == "llama"
    assert head.tensors == len(reference.tensors)
    for name in ("context_length", "embedding_length", "block_count", "attention.head_count"):
        assert head.number(name) == reference.fields[f"llama.{name}"].contents()
    assert head.lengths["tokenizer.ggml.tokens"] == len(
        reference.fields["tokenizer.ggml.tokens"].data
    )
    assert head.size_bytes == DEMO.stat().st_size


def test_other_real_models(tmp_path: Path) -> None:
    build_embedding_model(tmp_path / "e.gguf")
    head = read_head(tmp_path / "e.gguf")
    assert (head.architecture, head.values["bert.attention.causal"]) == ("bert", False)
    build_multimodal_model(tmp_path / "m.gguf", tmp_path / "p.gguf")
    projector = read_head(tmp_path / "p.gguf")
    assert (projector.architecture, projector.whole) == ("clip", True)


def test_reading_stops_at_the_vocabulary() -> None:
    head = read_head(DEMO)
    assert not head.whole
    assert head.text("tokenizer.chat_template") == ""


def test_every_type_of_value(tmp_path: Path) -> None:
    pairs = [
        _pair("general.architecture", 8, _text("x")),
        _pair("x.u8", 0, b"\xff"),
        _pair("x.i8", 1, b"\xff"),
        _pair("x.u16", 2, struct.pack("<H", 65_535)),
        _pair("x.i16", 3, struct.pack("<h", -2)),
        _pair("x.i32", 5, struct.pack("<i", -3)),
        _pair("x.f32", 6, struct.pack("<f", 0.5)),
        _pair("x.yes", 7, b"\x01"),
        _pair("x.i64", 11, struct.pack("<q", -4)),
        _pair("x.f64", 12, struct.pack("<d", 0.25)),
        _pair("x.u64", 10, struct.pack("<Q", 2**63)),
        _array("x.heads", 4, 3, struct.pack("<3I", 1, 0, 8)),
        _array("x.names", 8, 2, _text("a") + _text("b" * 300_000)),
        _array("x.nested", 9, 1, struct.pack("<IQ", 0, 2) + b"ab"),
        _array("x.many", 4, 5000, bytes(20_000)),
        _pair("x.long", 8, _text("l" * 70_000)),
        _pair("x.block_count", 4, struct.pack("<I", 3)),
    ]
    head = read_head(_file(tmp_path / "m.gguf", *pairs))
    assert head.whole
    assert head.values["x.f64"] == 0.25
    assert (head.number("u8"), head.number("u16"), head.number("i8", 7)) == (255, 65_535, 7)
    assert head.number("u64", 7) == 7  # no count of anything
    assert head.number("f32", 7) == 7
    assert head.number("heads") == 8
    assert head.per_layer("heads", 3) == [1, 0, 8]
    assert head.per_layer("heads", 2) == [8, 8]
    assert head.per_layer("none", 2, 5) == [5, 5]
    assert head.lengths == {"x.heads": 3, "x.names": 2, "x.nested": 1, "x.many": 5000}
    assert head.number("block_count") == 3


def test_all_parts_of_a_split_model_are_counted(tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-00003.gguf"
    for number in (1, 2, 3):
        (tmp_path / f"m-0000{number}-of-00003.gguf").write_bytes(DEMO.read_bytes())
    assert read_head(first).size_bytes == 3 * DEMO.stat().st_size
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(EngineFailure, match="m-00002-of-00003") as caught:
        read_head(first)
    assert caught.value.failure.cause is Cause.MODEL_MISSING


def test_what_is_no_file_to_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "none", tmp_path, fifo, Path("/dev/zero")):
        assert _refused(path).failure.cause is Cause.MODEL_MISSING


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "ends within its head"),
        (b"GG", "ends within its head"),
        (b"GGML" + bytes(100), "not a GGUF"),
        (b"<html>not found</html>", "not a GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**63), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1), "ends within its head"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**60), "a name of"),
    ],
)
def test_damaged_heads(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    refused = _refused(path)
    assert told in str(refused)
    assert refused.failure.cause is Cause.MODEL_CORRUPT


def test_versions(tmp_path: Path) -> None:
    spoil_version(DEMO, tmp_path / "m.gguf")
    assert _refused(tmp_path / "m.gguf").failure.cause is Cause.MODEL_UNSUPPORTED
    big_endian = tmp_path / "b.gguf"
    big_endian.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    assert _refused(big_endian).failure.cause is Cause.MODEL_UNSUPPORTED
    assert read_head(_file(tmp_path / "2.gguf", version=2)).version == 2


@pytest.mark.parametrize(
    "pair",
    [
        _array("x", 4, 2**62, b""),
        _array("x", 8, 2**62, bytes(64)),
        _array("x", 8, 1, struct.pack("<Q", 2**63)),
        _array("x", 9, 2**62, bytes(64)),
        _array("x", 99, 1, bytes(8)),
        _pair("x", 99, bytes(8)),
        _pair("x", 8, struct.pack("<Q", 2**63)),
        # Deeper and deeper:
        _array("x", 9, 1, struct.pack("<IQ", 9, 1) * 1000),
    ],
)
def test_lengths_that_lie(tmp_path: Path, pair: bytes) -> None:
    path = _file(tmp_path / "m.gguf", _pair("general.name", 8, _text("liar")), pair)
    assert _refused(path).failure.cause is Cause.MODEL_CORRUPT


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    path = _file(tmp_path / "m.gguf", _array("x", 0, 2**40, b""))
    with path.open("r+b") as file:
        file.truncate(2**41)
    assert _refused(path).failure.cause is Cause.MODEL_CORRUPT


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_head_or_a_refusal(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(DEMO.read_bytes()[:6000])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert isinstance(_head_or_none(path), GgufHead | None)


def _head_or_none(path: Path) -> GgufHead | None:
    try:
        return read_head(path)
    except EngineFailure:
        return None
