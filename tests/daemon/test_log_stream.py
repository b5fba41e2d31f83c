"""Lines to pipes, sockets, terminals and files: none of them ever blocks, none is cut in two."""

import fcntl
import os
import pty
import socket
import stat
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferd_daemon import log_stream
from inferd_daemon.log_stream import LogStream

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


def everything(reading: int) -> bytes:
    got = b""
    while True:
        try:
            piece = os.read(reading, 65_536)
        except BlockingIOError:
            return got
        if not piece:
            return got
        got += piece


def test_what_nobody_reads_is_lost_and_counted_and_never_blocks(ends: Ends) -> None:
    reading, writing = ends
    stream = LogStream(writing)
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    written = 0
    while stream.lost < 3:  # a test that blocks here fails by its timeout
        stream.write(f"line {written} {'x' * 500}\n")
        written += 1
        assert written < 10_000
    seen = everything(reading)
    stream.write("back\n")
    assert stream.lost == 0
    lines = (seen + everything(reading)).decode().splitlines()
    assert lines[-1] == "back"
    assert [line.split()[1] for line in lines[:-1]] == [str(n) for n in range(written - 3)]
    assert {len(line.split()[2]) for line in lines[:-1]} == {500}  # none is cut
    assert fcntl.fcntl(writing, fcntl.F_GETFL) == flags  # others share its mode
    stream.close()
    assert stat.S_IFMT(os.fstat(writing).st_mode)  # it is still open


def test_a_long_line_goes_out_whole(ends: Ends) -> None:
    reading, writing = ends
    stream = LogStream(writing)
    seen = b""
    stream.write("ä" * 100_000 + "\n")
    for _ in range(200):
        seen += everything(reading)
        stream.write("+\n")
    seen += everything(reading)
    stream.close()
    assert seen.decode().splitlines()[0] == "ä" * 100_000


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
