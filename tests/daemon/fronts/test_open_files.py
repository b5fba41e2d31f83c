"""What the daemon holds open appears in an order: who finds its socket finds the rest."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_daemon.config import Config, DaemonConfig, HttpConfig, Places, find_places
from inferd_daemon.errors import OperatorError
from inferd_daemon.fronts.open_files import open_files
from inferd_daemon.fronts.socket_file import SocketFile
from tests.support.daemon import temporary_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as directory:
        yield directory


def found(
    directory: Path, http: HttpConfig | None = None, name: str = "d.sock"
) -> tuple[Config, Places]:
    path = str(directory / "run" / name)
    config = Config(daemon=DaemonConfig(socket=path, compat_sockets=["embed"]), http=http)
    return config, find_places(config, {}, 0)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of sockets, as they appear."""
    names: list[str] = []
    show = SocketFile.show

    def watched(file: SocketFile) -> None:
        show(file)
        names.append(file.path.name)

    monkeypatch.setattr(SocketFile, "show", watched)
    return names


# The longest is longer than what the sockets beside it add to the name.
@pytest.mark.parametrize("name", ["d.sock", "s" * 39 + ".sock", "s" * 50 + ".sock"])
def test_who_finds_the_socket_finds_all_the_others(
    directory: Path, shown: list[str], name: str
) -> None:
    config, places = found(directory, name=name)
    others = [places.admin_socket, places.line_socket("embed")]
    with open_files(config, places, None):
        assert shown == [*(path.name for path in others), name]
        for path in (places.socket, *others):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
    assert not places.socket.exists()


def test_who_cannot_open_them_all_shows_none(directory: Path, shown: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config, places = found(directory, HttpConfig(listen=f"127.0.0.1:{port}"))
        with pytest.raises(OperatorError, match=str(port)), open_files(config, places, None):
            pass
    assert shown == [places.admin_socket.name]
    assert [file.name for file in places.socket.parent.iterdir() if file.is_socket()] == []
