"""A fuzz target over both roles of the connection, with a corpus beside it.

By hand, for as long as wanted: `python -m tests.proto.fuzz.target SECONDS [SEED]` (an input that
breaks a promise is kept as `corpus/crash-*`); with atheris, if it is installed:
`python -m tests.proto.fuzz.target atheris [libFuzzer options]`.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from inferd_proto import (
    AnswerReceived,
    CancelReceived,
    ClientConnection,
    Closed,
    Control,
    DoneV2,
    Embed,
    Error,
    ErrorCode,
    FrameReader,
    FrameType,
    GenerateV1,
    GenerateV2,
    Message,
    Refused,
    RemoteProtocolError,
    RequestReceived,
    Rerank,
    ServerConnection,
    Text,
    TextMessage,
    UploadCancelled,
    pack,
)

CORPUS = Path(__file__).parent / "corpus"
MAX_ERROR_CHARS = 500
_IN_FLIGHT = 4
_BYTES = (0x00, 0x01, 0x02, 0x03, 0x7F, 0x80, 0x81, 0xC0, 0xC1, 0xDD, 0xDF, 0xFF, 0x22, 0x5B, 0x7B)


def run(data: bytes) -> None:
    """One input: its first byte says how the rest comes in. Raises where a promise is broken."""
    if not data:
        return
    size = (1, 7, 64, len(data))[data[0] & 3]
    pieces = [data[i : i + size] for i in range(1, len(data), size)]
    if data[0] & 4:
        _serve(pieces)
    else:
        _ask(pieces, FrameType.MSGPACK if data[0] & 8 else FrameType.JSON)


def _serve(pieces: list[bytes]) -> None:
    """No bytes make a server raise, answer at length, or talk on after it has closed."""
    server = ServerConnection(max_in_flight=_IN_FLIGHT)
    for piece in [*pieces, b""]:
        server.receive_data(piece)
        while (event := server.next_event()) is not None:
            match event:
                case Refused(_, _, message, data, close):
                    assert len(message) < MAX_ERROR_CHARS
                    _check_error(event, data)
                    if close:
                        assert server.next_event() is None
                case RequestReceived(id_):
                    assert id_ in server.in_flight
                    if len(server.in_flight) == _IN_FLIGHT:
                        server.send(Error(id_, ErrorCode.INTERNAL, "fuzz"))
                case UploadCancelled(id_, data):
                    assert id_ not in server.in_flight
                    _check_cancelled(id_, data)
                case CancelReceived(id_):
                    server.send(Error(id_, ErrorCode.INTERNAL, "fuzz"))
                case Closed():
                    assert not piece
            assert len(server.in_flight) <= _IN_FLIGHT


def _check_cancelled(id_: str, data: bytes) -> None:
    client = ClientConnection()
    client.send_request(GenerateV2(id=id_, messages=[Message("user", [Text("hi")])]))
    client.receive_data(data)
    event = client.next_event()
    assert isinstance(event, AnswerReceived)
    assert isinstance(event.answer, DoneV2)
    assert (event.id, event.answer.stop_reason) == (id_, "cancelled")
    assert client.next_event() is None


def _check_error(event: Refused, data: bytes) -> None:
    client = ClientConnection()
    client.receive_data(data)
    answer = Error(event.id, event.code, event.message)
    assert client.next_event() == AnswerReceived(event.id, answer, terminal=True)
    assert client.next_event() is None


def _ask(pieces: list[bytes], encoding: FrameType) -> None:
    """No bytes make a client raise anything but RemoteProtocolError, and that once."""
    client = ClientConnection(encoding=encoding)
    for request in (
        GenerateV2(id="r1", messages=[Message("user", [Text("hi")])]),
        GenerateV1(id="t1", messages=[TextMessage("user", "hi")]),
        Embed(id="e1", input=["a"]),
        Rerank(id="k1", query="q", documents=["a"]),
        Control("c1", "a.b", {}),
    ):
        client.send_request(request)
    error = _hear(client, pieces)
    if error is not None:
        assert len(error.message) < MAX_ERROR_CHARS
        assert client.next_event() is None


def _hear(client: ClientConnection, pieces: list[bytes]) -> RemoteProtocolError | None:
    for piece in [*pieces, b""]:
        client.receive_data(piece)
        try:
            while (event := client.next_event()) is not None:
                if isinstance(event, AnswerReceived) and event.terminal:
                    assert event.id not in client.in_flight
        except RemoteProtocolError as error:
            return error
    return None


# -- mutation ------------------------------------------------------------------------------


def read_corpus() -> dict[str, bytes]:
    """Every input of the corpus, by file name."""
    return {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}


def mutants(corpus: list[bytes], seed: int) -> Iterator[bytes]:
    """Endless mutants of the corpus, the same for the same seed.

    Half keep their framing: a broken length alone would hide all that is behind it.
    """
    rng = random.Random(seed)
    while True:
        data = rng.choice(corpus)
        for _ in range(rng.randint(1, 4)):
            if rng.random() < 0.5:
                data = data[:1] + _mutate_frames(rng, data[1:], rng.choice(corpus)[1:])
            else:
                data = _mutate_bytes(rng, data)
        if rng.random() < 0.3:
            data = rng.randbytes(1) + data[1:]
        yield data


def _mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return rng.randbytes(3)
    at = rng.randrange(len(data))
    to = min(len(data), at + rng.randint(1, 16))
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
        lambda: data[:at] + bytes([rng.choice(_BYTES)]) + data[at + 1 :],
        lambda: data[:at] + bytes([rng.choice(_BYTES)]) + data[at:],
        lambda: data[:at] + data[to:],
        lambda: data[:to] + data[at:to] * rng.randint(1, 8) + data[to:],
        lambda: data[:at] + str(rng.choice((-1, 0, 2**31, 2**64, 1e308))).encode() + data[at:],
    )
    return rng.choice(changes)()


def _mutate_frames(rng: random.Random, data: bytes, other: bytes) -> bytes:
    frames = _split(data)
    if not frames:
        return data
    at = rng.randrange(len(frames))
    type_, payload = frames[at]
    match rng.randrange(6):
        case 0:
            frames.insert(rng.randrange(len(frames) + 1), frames[at])
        case 1:
            del frames[at]
        case 2:
            rng.shuffle(frames)
        case 3:
            frames += _split(other)
        case 4:
            frames[at] = (rng.choice(list(FrameType)), payload)
        case _:
            frames[at] = (type_, _mutate_bytes(rng, payload))
    return b"".join(pack(type_, payload) for type_, payload in frames)


def _split(data: bytes) -> list[tuple[FrameType, bytes]]:
    reader = FrameReader()
    reader.feed(data)
    frames: list[tuple[FrameType, bytes]] = []
    try:
        while (frame := reader.next()) is not None:
            frames.append((frame.type, frame.payload or b""))
    except RemoteProtocolError:
        pass
    return frames


# -- by hand -------------------------------------------------------------------------------


def fuzz(seconds: float, seed: int) -> int:
    """Run mutants until the time is over; the number of inputs run. Keeps what breaks."""
    deadline = time.monotonic() + seconds
    count = 0
    for data in mutants(list(read_corpus().values()), seed):
        if time.monotonic() > deadline:
            break
        count += 1
        try:
            run(data)
        except BaseException:
            path = CORPUS / f"crash-{sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            print(f"kept as {path}", file=sys.stderr)
            raise
    return count


def main(arguments: list[str]) -> None:
    """`SECONDS [SEED]`, or `atheris` and its own options."""
    if arguments[:1] == ["atheris"]:
        atheris = import_module("atheris")
        atheris.Setup([sys.argv[0], str(CORPUS), *arguments[1:]], run)
        atheris.Fuzz()
        return
    seconds = float(arguments[0]) if arguments else 10.0
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(2**32)
    print(f"seed {seed}: {fuzz(seconds, seed)} inputs, none broke a promise")


if __name__ == "__main__":
    main(sys.argv[1:])
