"""A blocking client that says exactly what it is told: good manners, and bad ones."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from inferd_proto import Frame, FrameReader, FrameType, pack

HELLO = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]

Answer = dict[str, Any]


class WireClient:
    """One connection. Answers are dicts, as they came."""

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._reader = FrameReader()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise

    def say(self, **fields: object) -> None:
        """One message; `wire_version` is added."""
        payload = json.dumps({"wire_version": 1, **fields}).encode()
        self.sock.sendall(pack(FrameType.JSON, payload))

    def generate(self, request_id: str = "1", **fields: object) -> None:
        """A v2 request."""
        self.say(id=request_id, **{"messages": HELLO, **fields})

    def hear(self) -> Answer:
        """The next answer, JSON. Raises EOFError where the daemon closed."""
        answer: Answer = json.loads(self._hear_frame().payload or b"")
        return answer

    def hear_in_any_encoding(self) -> Answer:
        """The next answer, JSON or MessagePack."""
        frame = self._hear_frame()
        codec = msgspec.json if frame.type is FrameType.JSON else msgspec.msgpack
        answer: Answer = codec.decode(frame.payload or b"")
        return answer

    def _hear_frame(self) -> Frame:
        while (frame := self._reader.next()) is None:
            data = self.sock.recv(65_536)
            if not data:
                self._reader.finish()
                raise EOFError
            self._reader.feed(data)
        return frame

    def hear_end(self, request_id: str = "1") -> Answer:
        """The terminal answer of this request; all before it are passed over."""
        while (answer := self.hear())["id"] != request_id or answer["type"] in ("frame", "token"):
            pass
        return answer


@contextmanager
def connected(path: Path, timeout_s: float = 30.0) -> Iterator[WireClient]:
    """A client for the block."""
    client = WireClient(path, timeout_s)
    try:
        yield client
    finally:
        client.sock.close()
