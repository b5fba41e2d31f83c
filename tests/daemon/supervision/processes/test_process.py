"""Real children: spawned, waited for, ended with their whole group, and tied to their parent."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.engines.base import EngineFailure, Launch
from inferd_daemon.supervision.processes import process as process_module
from inferd_daemon.supervision.processes.identity import is_gone, read_start_ticks
from inferd_daemon.supervision.processes.process import (
    EXEC_STUB,
    UNKNOWN_STATUS,
    Process,
    spawn,
)
from tests.support.daemon import wait_until
from tests.support.processes import is_alive, until

Spawn = Callable[..., Process]
SLEEPER = ["sleep", "1000"]
DEAF = ["sh", "-c", "trap '' INT TERM; echo deaf; while :; do sleep 1000; done"]


def group_members(group: int) -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, check=True)
    rows = (line.split() for line in listing.stdout.decode().splitlines())
    return [int(pid) for pid, pgid, stat in rows if int(pgid) == group and stat[0] != "Z"]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Spawn]:
    """Spawns, and ends what the test left."""
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    children: list[Process] = []

    def start_one(*argv: str, environment: dict[str, str] | None = None) -> Process:
        launch = Launch([*argv], {"PATH": os.environ["PATH"]} | (environment or {}))
        children.append(spawn(launch, log_fd=log))
        return children[-1]

    yield start_one
    os.close(log)
    for child in children:
        await child.kill()
        child.close()


async def ended(process: Process) -> int:
    with trio.fail_after(60):
        return await process.wait()


@pytest.mark.parametrize(
    ("script", "returncode"),
    [("exit 0", 0), ("exit 3", 3), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -9 $$", -9)],
)
async def test_the_exit_status_is_right(start: Spawn, script: str, returncode: int) -> None:
    assert await ended(start("sh", "-c", script)) == returncode


async def test_every_waiter_gets_the_status(start: Spawn) -> None:
    process = start("sh", "-c", "sleep 0.1; exit 7")
    seen: list[int] = []

    async def wait() -> None:
        seen.append(await ended(process))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
    assert seen == [7] * 5


async def test_a_cancelled_wait_leaves_the_process_alone(start: Spawn) -> None:
    process = start(*SLEEPER)
    with trio.move_on_after(0.05):
        await process.wait()
    assert is_alive(process.pid)
    assert await process.kill() == -signal.SIGKILL


async def test_a_child_outlives_trios_idle_threads(start: Spawn) -> None:
    process = start(*SLEEPER)
    await trio.to_thread.run_sync(lambda: None)
    await trio.sleep(12)  # trio's worker threads retire after 10 idle seconds
    assert process.returncode is None
    assert is_alive(process.pid)


async def test_only_the_main_thread_spawns(start: Spawn) -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await trio.to_thread.run_sync(lambda: start(*SLEEPER))


async def test_a_stop_ends_the_whole_group(start: Spawn) -> None:
    process = start("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    await until(lambda: len(group_members(process.pid)) == 3)
    await process.stop(5)
    await until(lambda: not group_members(process.pid))


async def test_a_crash_of_the_leader_ends_its_group(start: Spawn) -> None:
    process = start("sh", "-c", "sleep 1000 & sleep 0.1; kill -SEGV $$")
    assert await ended(process) == -signal.SIGSEGV
    await until(lambda: not group_members(process.pid))


@pytest.fixture
def no_second_interrupt(monkeypatch: pytest.MonkeyPatch) -> float:
    """It would come so many seconds later, when every test is over."""
    monkeypatch.setattr(process_module, "SECOND_INTERRUPT_S", 60.0)
    return 60.0


async def test_who_hears_one_interrupt_ends_at_once(
    start: Spawn, no_second_interrupt: float
) -> None:
    process = start(*SLEEPER)
    await until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    begun = trio.current_time()
    assert await process.stop(100) == -signal.SIGINT
    assert trio.current_time() - begun < no_second_interrupt


@pytest.mark.parametrize("needed", [2, 3])
async def test_who_waits_for_another_interrupt_gets_it(
    start: Spawn, tmp_path: Path, mock_clock: trio.testing.MockClock, needed: int
) -> None:
    heard = f"n=$((n+1)); test $n = {needed} && exit 9; echo heard $n"
    process = start("sh", "-c", f"trap '{heard}' INT; echo up; while :; do sleep 0.05; done")
    ended_with: list[int] = []

    async def stop() -> None:
        ended_with.append(await process.stop(60))

    async def wait_for(word: str) -> None:
        # The clock of this test stands still: two interrupts at once would count as one.
        log = tmp_path / "log"
        await trio.to_thread.run_sync(wait_until, lambda: word in log.read_text(), 10, word)

    await wait_for("up")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        for number in range(1, needed):
            await wait_for(f"heard {number}")
            assert process.returncode is None
            mock_clock.jump(process_module.SECOND_INTERRUPT_S)
    assert ended_with == [9]
    assert trio.current_time() == (needed - 1) * process_module.SECOND_INTERRUPT_S


async def test_who_is_deaf_is_killed_after_the_timeout(start: Spawn, tmp_path: Path) -> None:
    process = start(*DEAF)
    await until(lambda: "deaf" in (tmp_path / "log").read_text())
    begun = trio.current_time()
    assert await process.stop(0.3) == -signal.SIGKILL
    assert 0.25 < trio.current_time() - begun < 60
    await until(lambda: not group_members(process.pid))


async def test_a_cancelled_stop_still_kills_and_reaps(start: Spawn, tmp_path: Path) -> None:
    process = start(*DEAF)
    await until(lambda: "deaf" in (tmp_path / "log").read_text())
    with trio.move_on_after(0.1):
        await process.stop(60)
    assert process.returncode == -signal.SIGKILL
    assert read_start_ticks(process.pid) == 0


def _suspend(process: Process) -> None:
    """Returns once it is: before, it would hear other signals first."""
    process.signal_group(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


async def test_a_stopped_process_can_be_killed(start: Spawn) -> None:
    process = start(*SLEEPER)
    _suspend(process)
    assert await process.kill() == -signal.SIGKILL


async def test_a_stopped_process_hears_that_it_is_to_end(
    start: Spawn, no_second_interrupt: float
) -> None:
    process = start(*SLEEPER)
    await until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    _suspend(process)
    begun = trio.current_time()
    assert await process.stop(100) == -signal.SIGINT
    assert trio.current_time() - begun < no_second_interrupt


async def test_a_signal_after_the_end_goes_nowhere(start: Spawn) -> None:
    process = start("true")
    await ended(process)
    process.signal_group(signal.SIGKILL)


LIBC_SIGNALS = 0b11 << 31
"""32 and 33 are the C library's own: nobody else can say what becomes of them."""


async def test_a_child_inherits_nothing_it_was_not_given(start: Spawn, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        script = "ls -l /proc/self/fd; cat; grep SigIgn /proc/self/status; env; umask"
        assert await ended(start("sh", "-c", script, environment={"MARK": "here"})) == 0
    log = (tmp_path / "log").read_text()
    assert "secret" not in log
    ignored = next(line for line in log.splitlines() if line.startswith("SigIgn:"))
    assert int(ignored.split()[1], 16) & ~LIBC_SIGNALS == 0
    assert "MARK=here" in log
    assert log.endswith("0077\n")


async def test_a_program_that_is_not_there_exits_127(start: Spawn, tmp_path: Path) -> None:
    assert await ended(start("/no/such/program")) == 127
    assert "cannot run /no/such/program: No such file" in (tmp_path / "log").read_text()


def test_the_stub_does_not_run_for_a_parent_that_is_gone() -> None:
    stub = [sys.executable, "-IS", str(EXEC_STUB), "1000000000", "echo", "ran"]
    done = subprocess.run(stub, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (126, b"")


PARENT = """
import os, sys, trio
from inferd_daemon.engines.base import Launch
from inferd_daemon.supervision.processes.process import spawn

async def main():
    children = [spawn(Launch(["sleep", "1000"], dict(os.environ)), log_fd=2) for _ in range(3)]
    print(*(child.pid for child in children), flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("delay_s", [0, 0.3])
def test_a_killed_parent_takes_its_children_along(delay_s: float) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(delay_s)
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
    wait_until(lambda: not any(map(is_alive, pids)), 10, "the end of the children")


async def test_a_child_that_the_kernel_reaps_still_ends(start: Spawn) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert await ended(start("sleep", "0.2")) == UNKNOWN_STATUS
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_no_descriptors_is_a_clean_refusal(start: Spawn) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # No number of a descriptor is low enough, whatever earlier tests have left open and closed.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(EngineFailure) as refused:
            start(*SLEEPER)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused.value.failure.passing
    assert await ended(start("true")) == 0


async def test_a_hundred_children_leave_no_descriptor(start: Spawn) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        batch = [start("true") for _ in range(5)]
        for process in batch:
            await ended(process)
            process.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_start_ticks_tell_processes_apart() -> None:
    assert read_start_ticks(os.getpid()) > 0
    assert read_start_ticks(2**30) == 0


def test_only_what_is_certainly_gone_counts_as_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not is_gone(child.pid)
        child.kill()
    assert is_gone(child.pid)
    assert not is_gone(0)
    assert not is_gone(1)
