"""Lines to pipes, sockets, terminals and files: none of them ever blocks, none is cut in two."""

import fcntl
import os
import pty
import select
import socket
import stat
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferd_daemon import log_stream
from inferd_daemon.log_stream import LogStream
from tests.support.daemon import wait_until

Ends = tuple[int, int]


def pipe_ends() -> Ends:
    return os.pipe()


def socket_ends() -> Ends:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def terminal_ends() -> Ends:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    return ours, theirs


@pytest.fixture(params=[pipe_ends, socket_ends, terminal_ends, "of another user"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """One to read and one to write; the last is a pipe that cannot be opened again."""
    make: Callable[[], Ends] | str = request.param
    if isinstance(make, str):

        def refuse(*_: object) -> int:
            raise PermissionError

        monkeypatch.setattr(log_stream, "_open_again", refuse)
        make = pipe_ends
    reading, writing = make()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def read_until(reading: int, done: Callable[[bytes], bool]) -> bytes:
    """The kernel hands on what is written to a terminal in its own time, not at once."""
    got = b""
    deadline = time.monotonic() + 30
    while not done(got):
        assert time.monotonic() < deadline, f"{len(got)} bytes, and not all"
        if select.select([reading], [], [], 0.01)[0]:
            got += os.read(reading, 65_536)
    return got


def test_what_nobody_reads_is_lost_and_counted_and_never_blocks(ends: Ends) -> None:
    reading, writing = ends
    stream = LogStream(writing)
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    taken: list[str] = []
    written = 0
    while stream.lost < 3:  # a test that blocks here fails by its timeout
        stream.write(f"line {written} {'x' * 500}\n")
        if not stream.lost:
            taken.append(str(written))
        written += 1
        assert written < 10_000
    assert taken[:3] == ["0", "1", "2"]
    # All but what may be left of the last of them.
    seen = read_until(reading, lambda got: got.count(b"\n") >= len(taken) - 1)

    def is_taken() -> bool:
        stream.write("back\n")
        return not stream.lost

    wait_until(is_taken, 10, "the room that was made")
    seen += read_until(reading, lambda got: got.endswith(b"back\n"))
    lines = seen.decode().splitlines()
    assert lines[-1] == "back"
    assert [line.split()[1] for line in lines[:-1]] == taken
    assert {len(line.split()[2]) for line in lines[:-1]} == {500}  # none is cut
    assert fcntl.fcntl(writing, fcntl.F_GETFL) == flags  # others share its mode
    stream.close()
    assert stat.S_IFMT(os.fstat(writing).st_mode)  # it is still open


def test_a_long_line_goes_out_whole(ends: Ends) -> None:
    reading, writing = ends
    stream = LogStream(writing)
    stream.write("ä" * 100_000 + "\n")

    def goes_on(got: bytes) -> bool:
        stream.write("+\n")
        return b"\n" in got

    seen = read_until(reading, goes_on)
    stream.close()
    assert seen.decode(errors="replace").splitlines()[0] == "ä" * 100_000


def test_nobody_at_the_other_end_is_no_failure() -> None:
    reading, writing = os.pipe()
    stream = LogStream(writing)
    os.close(reading)
    stream.write("x\n")
    assert stream.lost == 1
    stream.close()
    os.close(writing)


def test_a_file_that_others_write_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        stream = LogStream(file.fileno())
        stream.write("\udcff\n")
        os.write(file.fileno(), b"after\n")
        stream.close()
    assert path.read_bytes() == b"before\n\\udcff\nafter\n"
