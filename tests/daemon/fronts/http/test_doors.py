"""Where HTTP is listened on: by configuration, kept from one self to the next, or for leases."""

import gc
import os
import socket
from pathlib import Path

import pytest

from inferd_daemon.config import HttpConfig
from inferd_daemon.errors import OperatorError
from inferd_daemon.fronts.http import doors as http_doors
from inferd_daemon.fronts.http.doors import HttpDoors, check_free, wanted_doors

HERE = "127.61.7.3"
"""Loopback as well, where no other test takes a port that is closed here for a while."""
ANY = HttpConfig(listen=f"{HERE}:0")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_doors, "LOOPBACK", HERE)


def connects(port: int) -> bool:
    try:
        socket.create_connection((HERE, port), 10, ("127.0.0.1", 0)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_what_is_configured_listens_for_the_block(tmp_path: Path) -> None:
    unix = tmp_path / "h.sock"
    config = HttpConfig(listen="[::1]:0", unix=str(unix), unix_mode="0640")
    with HttpDoors(config, tmp_path) as doors:
        tcp, file = doors.doors
        assert tcp.url(tls=False) == f"http://[::1]:{tcp.port}"
        assert tcp.url(tls=True).startswith("https://")
        assert file.url(tls=False) == f"unix:{unix}"
        assert unix.stat().st_mode & 0o777 == 0o640
    assert not unix.exists()
    assert wanted_doors(HttpConfig()) == [("listen", "127.0.0.1:8417")]
    assert wanted_doors(None) == []


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server((HERE, 0)) as other:
        address = f"{HERE}:{other.getsockname()[1]}"
        config = HttpConfig(listen=address)
        said = rf"http\.listen: another program listens on {address}"
        with pytest.raises(OperatorError, match=said), HttpDoors(config, tmp_path):
            pass
        with pytest.raises(OperatorError, match=said):
            check_free(config, [])
    check_free(config, [])


def test_the_next_self_gets_what_still_has_a_place(tmp_path: Path) -> None:
    with HttpDoors(ANY, tmp_path) as doors:
        doors.for_leases()
        (port,) = (door.port for door in doors.doors)
        assert [(one.name, one.socket.path) for one in doors.describe()] == [
            ("listen", f"{HERE}:0")
        ]
        check_free(ANY, doors.describe())
        handed = doors.hand_over()
    assert connects(port)
    with HttpDoors(ANY, tmp_path, handed) as doors:
        assert [door.port for door in doors.doors] == [port]
        handed = doors.hand_over()
    with HttpDoors(HttpConfig(unix=str(tmp_path / "x.sock")), tmp_path, handed) as doors:
        assert [door.name for door in doors.doors] == ["unix"]
        assert not connects(port)


def test_leases_have_the_same_port_again(tmp_path: Path) -> None:
    with HttpDoors(None, tmp_path) as doors:
        assert doors.doors == []
        door, opened = doors.for_leases()
        again, reopened = doors.for_leases()
        assert (opened, reopened, again) == (True, False, door)
        port = door.port
        handed = doors.hand_over()
    with HttpDoors(None, tmp_path, handed) as doors:  # upgraded
        assert doors.for_leases()[0].port == port
    assert not connects(port)
    with HttpDoors(None, tmp_path) as doors:  # restarted
        assert doors.for_leases()[0].port == port
    with socket.create_server((HERE, port)), HttpDoors(None, tmp_path) as doors:
        other = doors.for_leases()[0].port
        assert other not in (0, port)
    with HttpDoors(None, tmp_path) as doors:
        assert doors.for_leases()[0].port == other


@pytest.mark.parametrize("kept", ["", "rubbish", "-1", "99999"])
def test_a_damaged_file_costs_the_port_alone(tmp_path: Path, kept: str) -> None:
    (tmp_path / "http-port").write_text(kept)
    with HttpDoors(None, tmp_path) as doors:
        assert doors.for_leases()[0].port > 0


def test_leases_use_a_configured_door_that_they_can(tmp_path: Path) -> None:
    with HttpDoors(ANY, tmp_path) as doors:
        assert doors.for_leases() == (doors.doors[0], False)
    secure = HttpConfig(listen=f"{HERE}:0", tls_cert_file="c", tls_key_file="k")
    for config in (secure, HttpConfig(unix=str(tmp_path / "x.sock"))):
        with HttpDoors(config, tmp_path) as doors:
            door, opened = doors.for_leases()
            assert (door.name, opened) == ("leases", True)


def test_nothing_stays_open_where_one_cannot(tmp_path: Path) -> None:
    gc.collect()  # what other tests left closes its descriptors now
    before = len(os.listdir("/proc/self/fd"))
    config = HttpConfig(listen=f"{HERE}:0", unix=str(tmp_path / ("x" * 200)))
    with pytest.raises(OperatorError, match=r"http\.unix: "), HttpDoors(config, tmp_path):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
