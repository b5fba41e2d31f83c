"""Finding the daemon, waiting for it, and saying why there is none; both clients alike."""

import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from inferd_client import Client, ConnectError, DaemonNotRunning, InferdError, connecting
from inferd_client.blocking import Client as BlockingClient
from inferd_client.connecting import find_socket
from tests.clients.scripted_daemon import ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]


def _fails(run: Run, path: Path, kind: type[InferdError], match: str, **options: float) -> None:
    async def main() -> None:
        with pytest.raises(kind, match=match):
            async with Client(path, **options):  # type: ignore[arg-type]
                pass

    run(main)
    with pytest.raises(kind, match=match), BlockingClient(path, **options):  # type: ignore[arg-type]
        pass


def test_no_socket(run: Run, tmp_path: Path) -> None:
    _fails(run, tmp_path / "none.sock", DaemonNotRunning, "there is no socket at")


def test_the_socket_of_a_service_is_told(
    monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path
) -> None:
    service = tmp_path / "service.sock"
    monkeypatch.setattr(connecting, "SERVICE_SOCKET", str(service))
    _fails(run, tmp_path / "none.sock", DaemonNotRunning, r"none\.sock$")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(service))
        _fails(run, tmp_path / "none.sock", DaemonNotRunning, f"INFERD_SOCKET={service}")


def test_a_socket_left_behind(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    _fails(run, path, DaemonNotRunning, "nobody listens on")


def test_a_file_that_is_no_socket(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    _fails(run, path, DaemonNotRunning, "this is not a socket")


def test_a_path_that_is_too_long(run: Run, tmp_path: Path) -> None:
    _fails(run, tmp_path / ("x" * 110), ConnectError, "longer than 107 bytes")


@pytest.mark.skipif(os.getuid() == 0, reason="root may open every socket")
def test_a_socket_of_others(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.path.chmod(0)
    _fails(run, daemon.path, ConnectError, "membership in the socket's group")


def test_permission_denied_in_words(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """The same for root, who is never refused: the kernel's answer is put in its place."""

    def refuse(_self: object, _path: str) -> None:
        raise PermissionError(13, "Permission denied")

    class Refusing(socket.socket):
        connect = refuse  # type: ignore[assignment]

    monkeypatch.setattr("inferd_client.connecting.socket.socket", Refusing)
    with (
        pytest.raises(ConnectError, match="membership in the socket's group"),
        BlockingClient("/x"),
    ):
        pass


def test_a_daemon_that_accepts_nobody(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        try:
            waiting[0].connect(str(path))
            start = time.monotonic()
            _fails(run, path, ConnectError, "does not accept", connect_timeout_s=0.2)
            assert 0.4 <= time.monotonic() - start < 60
        finally:
            for client in waiting:
                client.close()


def test_a_daemon_that_comes_up_is_waited_for(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "late.sock"
    daemon = ScriptedDaemon(path)
    starter = threading.Timer(0.2, daemon.__enter__)
    starter.start()

    async def main() -> None:
        async with Client(path, wait_s=60) as client:
            assert (await client.status()).ready

    try:
        run(main)
    finally:
        starter.join()
        daemon.__exit__(None, None, None)


def test_waiting_is_bounded(run: Run, tmp_path: Path) -> None:
    start = time.monotonic()
    _fails(run, tmp_path / "none.sock", DaemonNotRunning, "no daemon runs here", wait_s=0.2)
    assert 0.4 <= time.monotonic() - start < 60


def test_the_socket_is_found(monkeypatch: pytest.MonkeyPatch, daemon: ScriptedDaemon) -> None:
    monkeypatch.setenv("INFERD_SOCKET", f"unix://{daemon.path}")
    with BlockingClient() as client:
        assert client.status().ready
    monkeypatch.delenv("INFERD_SOCKET")
    monkeypatch.setenv("INFERD_RUNTIME_DIR", str(daemon.path.parent))
    assert find_socket(None) == str(daemon.path)
    assert find_socket(f"unix://{daemon.path}") == str(daemon.path)
