"""Reads the head of a GGUF file: what the model is, not its weights.

The file may be anything: every length is checked before it is believed, nothing large is kept, and
no byte behind the head is touched. Blocks on the disk; call it in a worker thread.
"""

import os
import re
import stat
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..base import EngineFailure
from ..failures import Cause, failure

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 65_536
MAX_KEY_BYTES = 65_535
MAX_HEAD_BYTES = 512 << 20
"""The largest vocabularies take some ten megabytes."""
MAX_KEPT_TEXT_BYTES = 64 * 1024
MAX_KEPT_ITEMS = 4096
"""Arrays with one number for each layer are kept, those with one for each token are counted."""
MAX_DEPTH = 4
MAX_COUNT = 1 << 32
CHUNK_BYTES = 1 << 20

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = _SCALARS[4], _SCALARS[10]
_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")

Value = int | float | bool | str | list[int | float | bool]


class GgufHead(NamedTuple):
    """What was read.

    `values` by key; `lengths` of the arrays that were only counted, such as the vocabulary.
    `size_bytes` is that of the whole model, all its parts together. `whole` is false where
    reading stopped at the vocabulary, behind which only the tokenizer follows.
    """

    version: int
    tensors: int
    values: dict[str, Value]
    lengths: dict[str, int]
    size_bytes: int
    whole: bool

    @property
    def architecture(self) -> str:
        """`llama`, `qwen3`, `bert`, `clip`, …; "" where the file does not say."""
        return self.text("general.architecture")

    def number(self, name: str, default: int = 0) -> int:
        """A whole number under `<architecture>.<name>`; the largest of a list of them."""
        value = self.values.get(f"{self.architecture}.{name}")
        if isinstance(value, list):
            value = max((_count(item, 0) for item in value), default=default)
        return _count(value, default)

    def per_layer(self, name: str, layers: int, default: int = 0) -> list[int]:
        """The same, one for each layer."""
        value = self.values.get(f"{self.architecture}.{name}")
        if isinstance(value, list) and len(value) == layers:
            return [_count(item, default) for item in value]
        return [self.number(name, default)] * layers

    def text(self, key: str) -> str:
        """The text under a full key; "" where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


def _count(value: object, default: int) -> int:
    """What can be a count in a model; whatever else a file may claim is not believed."""
    return value if isinstance(value, int) and 0 <= value <= MAX_COUNT else default


def read_head(path: Path) -> GgufHead:
    """The head of a model file, or of the first part of a split one.

    Raises EngineFailure: missing, not a GGUF, of another version, or damaged in its head.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _missing(path, "it is not a regular file")
            size = _size_of_all(path, status.st_size)
            try:
                return _parse(_Bytes(file, min(status.st_size, MAX_HEAD_BYTES)), size)
            except _DamagedError as error:
                raise _unfit(path, error) from error
    except OSError as error:
        raise _missing(path, error.strerror or "unknown error") from error


class _DamagedError(Exception):
    def __init__(self, why: str, cause: Cause = Cause.MODEL_CORRUPT) -> None:
        super().__init__(why)
        self.cause = cause


class _Bytes:
    """The bytes of a file up to a limit, read in chunks as they are asked for."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0
        self._left = limit
        """Bytes behind the buffer that may still be read."""

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count)
            end = count
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def skip(self, count: int) -> None:
        ready = len(self._buffer) - self._at
        if count <= ready:
            self._at += count
            return
        beyond = count - ready
        if beyond > self._left:
            raise _DamagedError("it ends within its head")
        self._file.seek(beyond, os.SEEK_CUR)
        self._left -= beyond
        self._buffer, self._at = b"", 0

    def number(self, kind: struct.Struct) -> int:
        (value,) = kind.unpack(self.take(kind.size))
        return int(value)

    def _fill(self, count: int) -> None:
        rest = self._buffer[self._at :]
        missing = count - len(rest)
        if missing > self._left:
            raise _DamagedError("it ends within its head")
        wanted = min(max(CHUNK_BYTES, missing), self._left)
        pieces = [rest]
        while missing > 0:
            piece = self._file.read(wanted)
            if not piece:
                raise _DamagedError("it ends within its head")
            pieces.append(piece)
            missing -= len(piece)
            wanted -= len(piece)
            self._left -= len(piece)
        self._buffer, self._at = b"".join(pieces), 0


def _parse(data: _Bytes, size: int) -> GgufHead:
    if data.take(4) != MAGIC:
        raise _DamagedError("it is not a GGUF file")
    version = data.number(_U32)
    if version not in VERSIONS:
        # A file of the other byte order looks like a huge version.
        raise _DamagedError(f"its GGUF version {version} is not supported", Cause.MODEL_UNSUPPORTED)
    tensors, keys = data.number(_U64), data.number(_U64)
    if keys > MAX_KEYS:
        raise _DamagedError(f"it claims {keys} keys")
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    whole = True
    for _ in range(keys):
        key = _text(data, MAX_KEY_BYTES)
        kind = data.number(_U32)
        if kind != _ARRAY:
            value = _scalar(data, kind)
            if value is not None:
                values[key] = value
            continue
        item, count = data.number(_U32), data.number(_U64)
        lengths[key] = count
        if key.startswith("tokenizer.") and item == _STRING and "general.architecture" in values:
            # What follows the vocabulary is long to walk through and says nothing of memory.
            whole = False
            break
        numbers = _array(data, item, count, depth=1)
        if numbers is not None:
            values[key] = numbers
    return GgufHead(version, tensors, values, lengths, size, whole)


def _text(data: _Bytes, limit: int) -> str:
    length = data.number(_U64)
    if length > limit:
        raise _DamagedError(f"it holds a name of {length} bytes")
    return data.take(length).decode(errors="replace")


def _scalar(data: _Bytes, kind: int) -> Value | None:
    if kind == _STRING:
        length = data.number(_U64)
        if length > MAX_KEPT_TEXT_BYTES:
            data.skip(length)
            return None
        return data.take(length).decode(errors="replace")
    form = _SCALARS.get(kind)
    if form is None:
        raise _DamagedError(f"it holds a value of unknown type {kind}")
    (value,) = form.unpack(data.take(form.size))
    return value  # type: ignore[no-any-return]


def _array(data: _Bytes, kind: int, count: int, depth: int) -> list[int | float | bool] | None:
    """The numbers of a short array; None for others, which are passed over."""
    form = _SCALARS.get(kind)
    if form is not None:
        if count > MAX_KEPT_ITEMS:
            data.skip(count * form.size)
            return None
        return [value for (value,) in form.iter_unpack(data.take(count * form.size))]
    if kind == _STRING:
        # Each item takes eight bytes at least, so a false count meets the file's end.
        for _ in range(count):
            data.skip(data.number(_U64))
        return None
    if kind == _ARRAY and depth < MAX_DEPTH:
        for _ in range(count):
            inner, length = data.number(_U32), data.number(_U64)
            _array(data, inner, length, depth + 1)
        return None
    raise _DamagedError(f"it holds an array of unknown type {kind}")


def _size_of_all(path: Path, size: int) -> int:
    """Of a split model the sizes of all parts together."""
    part = _PART.match(path.name)
    if part is None:
        return size
    total, count = 0, int(part["count"])
    for number in range(1, count + 1):
        sibling = path.with_name(f"{part['stem']}-{number:05}-of-{count:05}.gguf")
        try:
            total += sibling.stat().st_size
        except OSError as error:
            raise _missing(sibling, error.strerror or "unknown error") from error
    return total


def _missing(path: Path, why: str) -> EngineFailure:
    return EngineFailure(
        failure(Cause.MODEL_MISSING, f"the model file cannot be opened: {path}: {why}")
    )


def _unfit(path: Path, error: _DamagedError) -> EngineFailure:
    return EngineFailure(failure(error.cause, f"the model file {path} cannot be read: {error}"))
