"""The golden vectors of the wire, read from the text file that documents them."""

from importlib.resources import files
from typing import NamedTuple

import inferd_proto


class GoldenFrame(NamedTuple):
    """One frame; `form` is json, msgpack, blob or broken, `text` the payload as the file tells."""

    from_client: bool
    data: bytes
    form: str
    text: str


class GoldenLength(NamedTuple):
    """A payload length and its bytes."""

    length: int
    data: bytes


def read_vectors() -> dict[str, list[GoldenFrame]]:
    """The frames of each vector, by its name."""
    vectors: dict[str, list[GoldenFrame]] = {}
    mark, tokens = "", list[str]()
    for line in _lines():
        if line.startswith("@ "):
            vectors[line.split()[1]] = frames = []
        elif line[:2] in ("> ", "< "):
            mark, tokens = line[0], line[2:].split()
        elif line.startswith("  ") and mark:
            word, _, text = line[2:].partition(" ")
            if word in ("json", "msgpack", "blob", "broken"):
                frames.append(GoldenFrame(mark == ">", _unhex(tokens), word, text.strip()))
                mark = ""
            else:
                tokens += line.split()
    return vectors


def read_lengths() -> list[GoldenLength]:
    """The length table."""
    rows = [line.split(maxsplit=2) for line in _lines() if line.startswith("L ")]
    return [GoldenLength(int(length), bytes.fromhex(data)) for _, length, data in rows]


def _lines() -> list[str]:
    text = files(inferd_proto).joinpath("golden", "frames.txt").read_text("utf-8")
    return text[text.index("\n@ ") :].splitlines()


def _unhex(tokens: list[str]) -> bytes:
    pieces = [token.partition("*") for token in tokens]
    return b"".join(bytes.fromhex(byte) * int(times or 1) for byte, _, times in pieces)
