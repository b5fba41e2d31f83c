"""Where files go: one directory for one daemon, and no quarrel between two in one directory."""

from pathlib import Path

import pytest

from inferd_daemon.config import Config, Places, find_places
from inferd_daemon.config.schema import DaemonConfig

UID = 1000


def places(socket: str | None = None, **environ: str) -> Places:
    return find_places(Config(daemon=DaemonConfig(socket=socket)), environ, UID)


def test_what_belongs_to_the_socket_lies_beside_it() -> None:
    found = places(XDG_RUNTIME_DIR="/run/user/1000", HOME="/home/ann")
    assert found == Places(
        Path("/run/user/1000/inferd/inferd.sock"),
        Path("/run/user/1000/inferd/admin.sock"),
        Path("/run/user/1000/inferd/runtimes"),
        Path("/home/ann/.local/state/inferd"),
    )


def test_two_sockets_in_one_directory_share_nothing() -> None:
    one, other = places("/tmp/a.sock", HOME="/home/ann"), places("/tmp/b.sock", HOME="/home/ann")
    assert one == Places(
        Path("/tmp/a.sock"),
        Path("/tmp/a.admin.sock"),
        Path("/tmp/a.runtimes"),
        Path("/tmp/a.state"),
    )
    assert not {*_paths(one)} & {*_paths(other)}


def _paths(found: Places) -> list[Path]:
    return [found.socket, found.admin_socket, found.runtimes, found.state]


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"INFERD_STATE_DIR": "/s", "STATE_DIRECTORY": "/t"}, "/s"),
        ({"STATE_DIRECTORY": "/var/lib/inferd:/more"}, "/var/lib/inferd"),
        ({"XDG_STATE_HOME": "/x"}, "/x/inferd"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/ann"}, "/home/ann/.local/state/inferd"),
        ({"INFERD_SOCKET": "/run/x.sock", "HOME": "/home/ann"}, "/run/x.state"),
        ({}, f"/tmp/inferd-{UID}/state"),
    ],
)
def test_the_state_is_where_the_environment_says(environ: dict[str, str], state: str) -> None:
    assert places(**environ).state == Path(state)
