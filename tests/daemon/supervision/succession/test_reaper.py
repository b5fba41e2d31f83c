"""The reaper on real processes: what is ours ends, and nothing else is ever touched."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from inferd_daemon.supervision.leases.journal import DaemonEntry, Gone, Live, ProcessEntry
from inferd_daemon.supervision.processes.identity import read_boot_id, read_start_ticks
from inferd_daemon.supervision.succession.reaper import INSTANCE_VARIABLE, reap
from tests.support.processes import until

BOOT = read_boot_id()
FORMER, OWN = (f"mark-of-{whose}-{secrets.token_hex(8)}" for whose in ("a-former-run", "this-run"))
"""Nobody else's on this machine: another run of these tests may be under way."""


class Children:
    """Processes of this test, killed and reaped at its end."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, code: str = "", mark: str | None = None) -> "subprocess.Popen[str]":
        """A process that says it is there and waits."""
        environment = {"PATH": os.defpath} | ({INSTANCE_VARIABLE: mark} if mark else {})
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os, sys, time\n{code}\nprint(1, flush=True)\nwhile 1: time.sleep(9)",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline()
        return child


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    for child in made.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def _entry(child: "subprocess.Popen[str]", **changes: object) -> ProcessEntry:
    fields: dict[str, object] = {
        "instance_key": f"key-{child.pid}",
        "mark": FORMER,
        "boot_id": BOOT,
        "pid": child.pid,
        "start_ticks": read_start_ticks(child.pid),
    }
    return ProcessEntry(**fields | changes)  # type: ignore[arg-type]


def _wait_for_zombie(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_a_process_of_the_journal_ends(children: Children) -> None:
    child = children.start()
    entry = _entry(child)
    reaping = await reap([entry], boot_id=BOOT, own_mark=OWN)
    assert reaping.ended == [child.pid]
    assert child.wait() == -signal.SIGKILL
    assert reaping.gone == [Gone(entry.key)]


async def test_a_pid_that_was_used_again_is_left_alone(children: Children) -> None:
    stranger = children.start()
    entries: list[Live] = [
        _entry(stranger, start_ticks=read_start_ticks(stranger.pid) - 1),
        _entry(stranger, boot_id="of an earlier boot"),
        _entry(stranger, start_ticks=None),
        _entry(stranger, start_ticks=0),
        _entry(stranger, pid=None),
    ]
    reaping = await reap(entries, boot_id=BOOT, own_mark=OWN)
    assert reaping.ended == []
    assert stranger.poll() is None
    # They are certainly not ours any more, so the journal forgets them.
    assert {gone.key for gone in reaping.gone} == {entry.key for entry in entries}


def _start_with_pid(children: Children, pid: int) -> "subprocess.Popen[str] | None":
    """A new process with a pid that another had, as after the numbers have wrapped round.

    None where somebody else has got it.
    """
    for _ in range(20):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        child = children.start()
        if child.pid == pid:
            return child
        child.kill()
    return None


async def _start_twice(
    children: Children,
) -> "tuple[subprocess.Popen[str], ProcessEntry, subprocess.Popen[str]]":
    """One that has ended, its entry, and another with its pid."""
    for _ in range(10):
        former = children.start()
        entry = _entry(former)
        former.kill()
        former.wait()
        await trio.sleep(2 / os.sysconf("SC_CLK_TCK"))  # start times are told in these ticks
        stranger = _start_with_pid(children, former.pid)
        children.started.remove(former)  # its group is the stranger's now
        former.stdout.close()  # type: ignore[union-attr]
        if stranger is not None:
            return former, entry, stranger
    raise AssertionError("no pid was given again")


@pytest.mark.skipif(os.geteuid() != 0, reason="to choose a pid takes root")
async def test_a_pid_that_really_was_used_again_is_left_alone(children: Children) -> None:
    former, entry, stranger = await _start_twice(children)
    assert stranger.pid == former.pid
    assert (await reap([entry], boot_id=BOOT, own_mark=OWN)).ended == []
    assert stranger.poll() is None
    assert (await reap([_entry(stranger)], boot_id=BOOT, own_mark=OWN)).ended == [stranger.pid]


async def test_what_escaped_is_found_by_its_mark(children: Children, tmp_path: Path) -> None:
    """A child that the journal has only as an intent, and a grandchild that left its session."""
    told = tmp_path / "pid"
    fork = "if os.fork() == 0:\n os.setsid()\n if os.fork(): os._exit(0)\n"
    tells = f" open('{told}~', 'w').write(str(os.getpid()))\n os.rename('{told}~', '{told}')\n"
    child = children.start(fork + tells, mark=FORMER)
    await until(told.exists)
    grandchild = int(told.read_text())
    assert read_start_ticks(grandchild)
    intent = _entry(child, pid=None, start_ticks=None)
    reaping = await reap([intent], boot_id=BOOT, own_mark=OWN)
    assert {child.pid, grandchild} <= set(reaping.ended)
    assert child.wait() == -signal.SIGKILL


async def test_the_mark_of_the_daemon_alone_is_enough(children: Children) -> None:
    child = children.start(mark=FORMER)
    reaping = await reap([DaemonEntry(FORMER, 1, 2, BOOT)], boot_id=BOOT, own_mark=OWN)
    assert reaping.ended == [child.pid]


async def test_others_are_left_alone(children: Children) -> None:
    unmarked = children.start()
    ours = children.start(mark=OWN)
    another_daemons = children.start(mark="mark-of-another-daemon")
    longer = children.start(mark=f"{FORMER}-and-more")
    named = children.start(f"sys.argv.append('{INSTANCE_VARIABLE}={FORMER}')")
    entries: list[Live] = [
        DaemonEntry(FORMER, 1, 2, BOOT),
        DaemonEntry(OWN, os.getpid(), 2, BOOT),
        _entry(ours, mark=OWN),
    ]
    reaping = await reap(entries, boot_id=BOOT, own_mark=OWN)
    assert reaping.ended == []
    for child in (unmarked, ours, another_daemons, longer, named):
        assert child.poll() is None
    assert reaping.gone == [Gone(entries[0].key)]


async def test_what_was_taken_over_is_spared(children: Children) -> None:
    kept = children.start(mark=FORMER)
    reaping = await reap([_entry(kept)], boot_id=BOOT, own_mark=OWN, spare=[kept.pid])
    assert reaping.ended == []
    assert kept.poll() is None


async def test_one_that_is_stopped_or_ignores_signals_ends_too(children: Children) -> None:
    stubborn = children.start(
        "import signal\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)", mark=FORMER
    )
    os.kill(stubborn.pid, signal.SIGSTOP)
    reaping = await reap([_entry(stubborn)], boot_id=BOOT, own_mark=OWN)
    assert reaping.ended == [stubborn.pid]


async def test_one_that_ended_already(children: Children) -> None:
    zombie = children.start()
    entry = _entry(zombie)
    zombie.kill()
    _wait_for_zombie(zombie.pid)
    assert (await reap([entry], boot_id=BOOT, own_mark=OWN)).ended == []
    zombie.wait()
    reaping = await reap([entry], boot_id=BOOT, own_mark=OWN)
    assert (reaping.ended, reaping.stubborn) == ([], [])


async def test_sockets_go_and_nothing_else(tmp_path: Path, children: Children) -> None:
    left, file = tmp_path / "left.sock", tmp_path / "file.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    file.write_text("not a socket")
    child = children.start()
    entries = [
        _entry(child, uds=str(left)),
        _entry(child, instance_key="b", uds=str(file)),
        _entry(child, instance_key="c", uds=str(tmp_path / "none.sock")),
    ]
    await reap(entries, boot_id=BOOT, own_mark=OWN)
    assert not left.exists()
    assert file.exists()


async def test_nothing_known_nothing_done() -> None:
    reaping = await reap([], boot_id=BOOT, own_mark=OWN)
    assert reaping == ([], [], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user takes root")
def test_another_users_process_is_reported_not_ended(children: Children) -> None:
    """Without the right to end it, it stays, and the journal does not forget it."""
    child = children.start()
    script = f"""
import os, trio
from inferd_daemon.supervision.leases.journal import ProcessEntry
from inferd_daemon.supervision.succession.reaper import reap
entry = ProcessEntry(
    instance_key="k", mark="m", boot_id={BOOT!r}, pid={child.pid},
    start_ticks={read_start_ticks(child.pid)},
)
os.setuid(65534)
print(*trio.run(lambda: reap([entry], boot_id={BOOT!r}, own_mark="o")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"[] [{child.pid}] []" in done.stdout
    assert child.poll() is None
