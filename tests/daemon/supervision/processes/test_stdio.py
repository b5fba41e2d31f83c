"""Pipes to real children: nothing is lost, nothing stands still, nothing stays open."""

import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from inferd_daemon.engines.base import Launch
from inferd_daemon.supervision.processes.process import Process, spawn
from inferd_daemon.supervision.processes.stdio import Stdio

Start = Callable[..., tuple[Stdio, Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Spawns a shell with pipes, and ends what the test left."""
    made: list[tuple[Stdio, Process]] = []

    def start_one(script: str) -> tuple[Stdio, Process]:
        stdio = Stdio(stderr_tail_bytes=100)
        ends = stdio.child
        launch = Launch(["sh", "-c", script], {"PATH": os.environ["PATH"]})
        process = spawn(launch, log_fd=ends.stderr, stdin_fd=ends.stdin, stdout_fd=ends.stdout)
        stdio.close_child_ends()
        stdio.watch(process.pidfd)
        made.append((stdio, process))
        return made[-1]

    yield start_one
    for stdio, process in made:
        await process.kill()
        stdio.close()
        process.close()


async def said(stdio: Stdio) -> bytes:
    """All of stdout, until the process is gone."""
    data = b""
    with trio.fail_after(60):
        while not stdio.exited:
            await stdio.wait()
            data += stdio.pump()
    return data + stdio.rest()


async def test_what_goes_in_comes_out(start: Start) -> None:
    stdio, process = start("cat; echo done >&2")
    sent = os.urandom(1_000_000)
    stdio.write(sent[:10])
    stdio.write(sent[10:])
    stdio.close_stdin()
    assert await said(stdio) == sent
    assert stdio.stderr == "done\n"
    assert await process.wait() == 0


async def test_stdin_stays_open_until_it_is_closed(start: Start) -> None:
    stdio, _ = start("read a; echo got $a; read b || echo end")
    stdio.write(b"x\n")
    data = b""
    with trio.fail_after(60):
        while not data:
            await stdio.wait()
            data += stdio.pump()
    assert data == b"got x\n"
    with trio.move_on_after(0.1) as waited:
        await stdio.wait()
    assert waited.cancelled_caught
    stdio.close_stdin()
    assert await said(stdio) == b"end\n"


async def test_of_stderr_the_end_is_kept(start: Start) -> None:
    stdio, _ = start("yes noise | head -c 3000000 >&2; printf 'the end' >&2; echo out")
    assert await said(stdio) == b"out\n"
    assert stdio.stderr.endswith("noise\nthe end")
    assert len(stdio.stderr) == 100


async def test_who_reads_nothing_does_not_matter(start: Start) -> None:
    stdio, _ = start("exec <&-; sleep 0.1; echo out")
    stdio.write(b"x" * 1_000_000)
    assert await said(stdio) == b"out\n"
    stdio.write(b"more")
    stdio.close_stdin()


async def test_the_end_of_stdout_is_seen(start: Start) -> None:
    stdio, process = start("echo out; exec >&-; sleep 1000")
    data = b""
    with trio.fail_after(60):
        while not stdio.ended:
            await stdio.wait()
            data += stdio.pump()
    assert data == b"out\n"
    assert not stdio.exited
    await process.kill()


async def test_an_exit_is_seen_though_others_hold_the_pipes(start: Start) -> None:
    stdio, process = start("setsid sleep 1000 & echo $!")
    other = int(await said(stdio))
    assert not stdio.ended
    # Reaped, the process takes along who has not left its group yet.
    assert await process.wait() == 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(other, signal.SIGKILL)


def test_no_descriptor_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))

    async def open_and_close() -> None:
        stdio = Stdio()
        assert len(os.listdir("/proc/self/fd")) > before
        stdio.close()
        stdio.close()

    trio.run(open_and_close)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("spare", range(7))
def test_too_few_descriptors_are_an_error_that_leaves_none(spare: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.listdir("/proc/self/fd")
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 50, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(spare):
            os.close(taken.pop())
        with pytest.raises(OSError, match="Too many open files"):
            Stdio()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) <= set(before)
