"""What the daemon holds open appears in an order: who finds its socket finds the rest."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_daemon.config import Config, DaemonConfig, HttpConfig, Places, find_places
from inferd_daemon.errors import OperatorError
from inferd_daemon.fronts import open_files as room
from inferd_daemon.fronts.http.doors import HttpDoors
from inferd_daemon.fronts.open_files import open_files
from tests.support.daemon import temporary_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as directory:
        yield directory


def found(directory: Path, http: HttpConfig | None = None) -> tuple[Config, Places]:
    path = str(directory / "run" / "d.sock")
    config = Config(daemon=DaemonConfig(socket=path, compat_sockets=["embed"]), http=http)
    return config, find_places(config, {}, 0)


def test_who_finds_the_socket_finds_all_the_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, places = found(directory)
    seen: list[bool] = []

    class Watched(HttpDoors):
        def __enter__(self) -> "Watched":
            seen.append(places.socket.exists())
            return super().__enter__()

    monkeypatch.setattr(room, "HttpDoors", Watched)
    with open_files(config, places, None):
        assert seen == [False]
        for path in (places.socket, places.admin_socket, places.line_socket("embed")):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
    assert not places.socket.exists()


def test_who_cannot_open_them_all_shows_none(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config, places = found(directory, HttpConfig(listen=f"127.0.0.1:{port}"))
        with pytest.raises(OperatorError, match=str(port)), open_files(config, places, None):
            pass
    assert [file.name for file in places.socket.parent.iterdir() if file.is_socket()] == []
