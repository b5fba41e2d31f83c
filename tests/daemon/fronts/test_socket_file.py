"""The file of the listening socket: its owner, its mode, and what stands in its place."""

import grp
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_daemon.errors import OperatorError
from inferd_daemon.fronts.socket_file import SocketFile
from tests.support import without_chown
from tests.support.daemon import temporary_directory


@pytest.fixture
def path() -> Iterator[Path]:
    with temporary_directory() as directory:
        yield directory / "run" / "d.sock"


def refused(path: Path, **options: object) -> str:
    with pytest.raises(OperatorError) as caught, SocketFile(path, **options):  # type: ignore[arg-type]
        pass
    return str(caught.value)


def leftovers(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_listens_with_the_right_modes_and_leaves_nothing_but_the_lock(path: Path) -> None:
    with SocketFile(path, mode=0o600) as held, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        lock = path.with_name("d.sock.lock")
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        assert lock.read_text() == f"{os.getpid()}\n"
        client.connect(str(path))
        accepted, _ = held.socket.accept()
        accepted.close()
        assert leftovers(path) == ["d.sock", "d.sock.lock"]
    assert leftovers(path) == ["d.sock.lock"]


def test_one_that_is_not_shown_yet_is_held_all_the_same(path: Path) -> None:
    with SocketFile(path, shown=False) as held:
        assert not path.exists()
        assert "another inferd" in refused(path)
        held.show()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        held.show()
        assert leftovers(path) == ["d.sock", "d.sock.lock"]
    with SocketFile(path, shown=False):
        pass
    assert leftovers(path) == ["d.sock.lock"]


def test_what_a_predecessor_left_that_was_killed_as_it_bound_is_cleared_away(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path.with_name(".d.sock.new")))
    with SocketFile(path):
        assert leftovers(path) == ["d.sock", "d.sock.lock"]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_mode_does_not_depend_on_the_umask(path: Path, umask: int) -> None:
    path.parent.mkdir(mode=0o700)
    before = os.umask(umask)
    try:
        with SocketFile(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_stale_socket_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with SocketFile(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_second_owner_is_told_of_the_first(path: Path) -> None:
    with SocketFile(path):
        assert f"another inferd (pid {os.getpid()}) holds {path}" in refused(path)
        assert path.is_socket()
    with SocketFile(path):
        pass


def test_a_listener_without_our_lock_is_named(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        assert refused(path) == f"process {os.getpid()} listens at {path} already"
        assert path.is_socket()


def test_a_full_backlog_is_a_living_listener(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as foreign, socket.socket(socket.AF_UNIX) as first:
        foreign.bind(str(path))
        foreign.listen(0)
        first.connect(str(path))
        assert "cannot tell who listens" in refused(path)
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    assert refused(path) == f"{path} exists and is not a socket; move it away"
    assert path.read_text() == "precious"


def test_a_symbolic_link_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.with_name("elsewhere"))
    assert "is not a socket" in refused(path)


def test_a_lock_file_that_is_a_link_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.with_name("d.sock.lock").symlink_to(victim)
    assert "it is a symbolic link" in refused(path)
    assert victim.read_text() == "precious"


def test_a_lock_file_that_is_no_file(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path.with_name("d.sock.lock"))
    assert "is not a file of ours; remove it" in refused(path)
    path.with_name("d.sock.lock").unlink()
    path.with_name("d.sock.lock").mkdir()
    assert "Is a directory" in refused(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_lock_file_of_someone_else(path: Path) -> None:
    path.parent.mkdir()
    lock = path.with_name("d.sock.lock")
    lock.write_text("theirs")
    os.chown(lock, 12345, 12345)
    assert "is not a file of ours" in refused(path)
    assert lock.read_text() == "theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories to others")
def test_a_directory_of_someone_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    os.chown(path.parent, 12345, 12345)
    assert f"{path.parent} belongs to uid 12345" in refused(path)
    assert leftovers(path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links to others")
def test_a_link_of_someone_else_to_a_directory_of_ours_is_refused(path: Path) -> None:
    mine = path.parent.with_name("mine")
    mine.mkdir()
    path.parent.symlink_to(mine)
    os.lchown(path.parent, 12345, 12345)
    assert "belongs to uid 12345" in refused(path)


def test_the_group_of_the_socket(path: Path) -> None:
    group = grp.getgrgid(os.getgid())
    with SocketFile(path, group=group.gr_name):
        assert path.stat().st_gid == group.gr_gid


BIND = """
import grp, os, sys
from pathlib import Path
from inferd_daemon.errors import OperatorError
from inferd_daemon.fronts.socket_file import SocketFile

group = grp.getgrgid(os.getgid()).gr_name if sys.argv[2] == "own group" else None
try:
    with SocketFile(Path(sys.argv[1]), group=group) as held:
        print(oct(held.path.stat().st_mode & 0o777))
except OperatorError as error:
    print(error)
"""


def bind_without_chown(path: Path, whose: str) -> str:
    """What a process says that binds it while a system call filter denies chown."""
    command = [sys.executable, without_chown.__file__, sys.executable, "-c", BIND]
    done = subprocess.run(
        [*command, str(path), whose], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@without_chown.possible
def test_without_a_group_nothing_is_given_away(path: Path) -> None:
    assert bind_without_chown(path, "no group") == "0o660"


@without_chown.possible
def test_a_filter_that_denies_chown_is_told_from_a_group_that_is_not_ours(path: Path) -> None:
    said = bind_without_chown(path, "own group")
    assert said.startswith("socket_group: the daemon's user is in group")
    assert "SystemCallFilter=@chown" in said
    assert leftovers(path) == ["d.sock.lock"]


def test_a_group_that_is_not(path: Path) -> None:
    assert refused(path, group="no-such-group") == (
        "socket_group: there is no group 'no-such-group'"
    )
    assert leftovers(path) == ["d.sock.lock"]


def test_a_path_that_is_too_long() -> None:
    long = Path("/tmp") / ("x" * 107)
    assert "set INFERD_SOCKET to a shorter one" in refused(long)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot make directory" in refused(tmp_path / "file" / "d.sock")


def test_someone_elses_new_socket_is_not_removed_at_the_end(path: Path) -> None:
    with SocketFile(path), socket.socket(socket.AF_UNIX) as other:
        path.unlink()
        other.bind(str(path))
    assert path.is_socket()


def test_a_directory_that_is_gone_at_the_end_is_no_failure(path: Path) -> None:
    with SocketFile(path):
        for entry in path.parent.iterdir():
            entry.unlink()
        path.parent.rmdir()
