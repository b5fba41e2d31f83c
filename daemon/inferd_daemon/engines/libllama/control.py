"""What the daemon and its libllama worker tell each other over their socketpair, in our frames.

The daemon sends one `Boot`; the worker answers `Loading`, then `Loaded` or `Failed`. After that
nothing is said: the end of the stream means that the other side is gone.
"""

import socket

from msgspec import Struct

from inferd_proto import Codec, FrameReader, FrameType, RemoteProtocolError, encode, pack

MAX_CONTROL_BYTES = 256 * 1024
"""The largest message is a boot message with its paths."""
RECEIVE_BYTES = 65536


class Boot(Struct, frozen=True, tag="boot"):
    """Which model to serve, how, and where. Paths of files are absolute.

    `gpu_layers` as in llama.cpp: -1 decides by free memory, -2 means all. `pooling` None leaves
    it to the model. Zero threads or context leave them to llama.cpp.
    """

    model: str
    socket_path: str
    key: str
    alias: str
    mmproj: str | None = None
    ctx_size: int = 0
    parallel: int = 1
    gpu_layers: int = -1
    threads: int = 0
    threads_batch: int = 0
    embeddings: bool = False
    reranking: bool = False
    pooling: str | None = None
    verbosity: int = 1


class Loading(Struct, frozen=True, tag="loading"):
    """The engine library is there; the model is being read."""


class Loaded(Struct, frozen=True, tag="loaded"):
    """The model serves. `accelerator` is "cpu", or the first device llama.cpp found, lower case."""

    accelerator: str
    engine_version: str


class Failed(Struct, frozen=True, tag="failed"):
    """The worker ends. llama.cpp's own words stand in its log."""

    reason: str


Control = Boot | Loading | Loaded | Failed


class ControlStream:
    """Messages to bytes and back, for one end of the socketpair."""

    def __init__(self) -> None:
        self._reader = FrameReader(max_frame_bytes=MAX_CONTROL_BYTES)
        self._codec: Codec[Control] = Codec(Control)  # type: ignore[arg-type]

    def feed(self, data: bytes) -> None:
        """Take received bytes."""
        self._reader.feed(data)

    def next(self) -> Control | None:
        """The next whole message, None when more bytes are needed. Raises RemoteProtocolError."""
        frame = self._reader.next()
        if frame is None or frame.payload is None:
            return None
        return self._codec.decode(frame.type, frame.payload)

    @staticmethod
    def pack(message: Control) -> bytes:
        """One message as bytes to send."""
        return pack(FrameType.MSGPACK, encode(FrameType.MSGPACK, message))


def receive_blocking(connection: socket.socket, stream: ControlStream) -> Control | None:
    """The next message, None at the end of the stream. For the worker, which has no event loop.

    Raises RemoteProtocolError and OSError.
    """
    while (message := stream.next()) is None:
        data = connection.recv(RECEIVE_BYTES)
        if not data:
            return None
        stream.feed(data)
    return message


__all__ = [
    "Boot",
    "Control",
    "ControlStream",
    "Failed",
    "Loaded",
    "Loading",
    "RemoteProtocolError",
    "receive_blocking",
]
