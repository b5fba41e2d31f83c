"""What one self of the daemon tells the next: whole, versioned, and for one process only."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from inferd_daemon.backends.runtime import ModelFacts
from inferd_daemon.config import Config, Places, find_places
from inferd_daemon.engines.base import Belongings
from inferd_daemon.errors import OperatorError
from inferd_daemon.supervision.leases.journal import RuntimeEntry
from inferd_daemon.supervision.succession.handover import (
    HandedClient,
    HandedDirectory,
    HandedFiles,
    HandedProcess,
    HandedRuntime,
    HandedSocket,
    Handover,
    HandoverError,
    decode,
    encode,
)
from inferd_daemon.supervision.succession.reexec import (
    VARIABLE,
    memory_file,
    read_handover,
    receive,
)


def runtime(**fields: object) -> HandedRuntime:
    entry = RuntimeEntry(instance_key="k", kind="boot", spec={"model": "m"}, api_key="s3cret")
    return HandedRuntime(
        **{"entry": entry, "wanted": True, "serving": True, "last_used": 1.5, **fields}  # type: ignore[arg-type]
    )


def handover(**fields: object) -> Handover:
    files = HandedFiles(
        HandedSocket("/r/inferd.sock", 3, 4, 99),
        HandedSocket("/r/admin.sock", 5, -1, 0),
        HandedDirectory("/r/state", 6),
    )
    whole = {"pid": os.getpid(), "mark": "m", "files": files, "upgrades": 2, **fields}
    return Handover(**whole)  # type: ignore[arg-type]


def places(**changes: str) -> Places:
    daemon = {"socket": "/r/inferd.sock", "state_dir": "/r/state", **changes}
    return find_places(msgspec.convert({"daemon": daemon}, Config), {}, 0)


def test_what_is_handed_over_comes_back_whole() -> None:
    given = handover(
        accepted=7,
        clients=[HandedClient(5, 10)],
        runtimes=[
            runtime(
                process=HandedProcess(123, 11),
                facts=ModelFacts(model="m", n_ctx=512),
                belongings=Belongings(12, {"accelerator": "cpu"}),
                idle_since=3.0,
            ),
            runtime(serving=False),
        ],
    )
    assert decode(encode(given)) == given
    assert sorted(given.descriptors()) == [3, 4, 5, 6, 10, 11, 12]
    assert given.connections == {5}
    assert "s3cret" not in repr(given) + repr(given.runtimes[0].entry)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"version":9}', "hands over version 9, this one takes 2"),
        (b'{"version":2}', "does not read"),
        (b"", "does not read"),
        (b"\xff", "does not read"),
        (encode(handover())[:-10], "does not read"),
    ],
)
def test_what_does_not_read_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(HandoverError, match=reason):
        decode(data)


def test_a_daemon_of_other_places_does_not_fit() -> None:
    assert handover().misfit(places()) is None
    moved = handover().misfit(places(socket="/elsewhere/inferd.sock"))
    assert (
        moved
        == "socket would move from /r/inferd.sock to /elsewhere/inferd.sock: that takes a restart"
    )
    assert "state_dir would move" in str(handover().misfit(places(state_dir="/s")))


@pytest.fixture
def open_handover() -> Iterator[Handover]:
    """One whose descriptors are open, and inheritable as after an exec."""
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    reading, writing = os.pipe()
    for descriptor in (*(sock.fileno() for sock in sockets), reading):
        os.set_inheritable(descriptor, True)
    yield handover(
        files=HandedFiles(
            HandedSocket("/r/inferd.sock", sockets[0].fileno(), -1, 0),
            HandedSocket("/r/admin.sock", sockets[1].fileno(), -1, 0),
            HandedDirectory("/r/state", reading),
        )
    )
    for sock in sockets:
        sock.close()
    os.close(reading)
    os.close(writing)


def test_it_is_received_once_and_its_descriptors_are_private_again(
    open_handover: Handover,
) -> None:
    state = memory_file(encode(open_handover))
    environ = {VARIABLE: str(state), "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "A": "b"}
    assert receive(environ) == open_handover
    assert environ == {"A": "b"}
    assert not any(map(os.get_inheritable, open_handover.descriptors()))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(state)
    assert receive(environ) is None


def test_it_is_not_received_by_another_process() -> None:
    environ = {VARIABLE: str(memory_file(encode(handover(pid=1))))}
    with pytest.raises(OperatorError, match="meant for process 1"):
        receive(environ)


@pytest.mark.parametrize("named", ["", "x", "-1", "999999"])
def test_a_name_that_leads_nowhere_is_refused(named: str) -> None:
    environ = {VARIABLE: named}
    with pytest.raises(OperatorError, match="cannot take over"):
        read_handover(environ)
    assert not environ


def test_a_missing_descriptor_is_named(open_handover: Handover) -> None:
    lost = msgspec.structs.replace(open_handover, clients=[HandedClient(1, 999_999)])
    with pytest.raises(OperatorError, match="a descriptor was not handed over"):
        receive({VARIABLE: str(memory_file(encode(lost)))})


def test_the_preflight_of_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inferd_daemon", "--backend", "mock", "--preflight"]
    command += ["--socket", str(tmp_path / "inferd.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ready to take over\n"
    assert not list(tmp_path.iterdir())
