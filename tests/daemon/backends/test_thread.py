"""Work in a thread that cannot be had: an OSError, and no other error is mistaken for it."""

import errno
import threading
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends.thread import in_thread
from inferd_daemon.supervision.leases.journal import Gone
from inferd_daemon.supervision.leases.journal_file import JournalUnavailable, open_journal


async def test_work_is_done_in_another_thread() -> None:
    def work(text: str, *, end: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return text + end

    assert await in_thread(work, trio.CapacityLimiter(1), "a", end="b") == "ab"


async def test_errors_of_the_work_are_its_own() -> None:
    def work() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await in_thread(work, None)


@pytest.mark.usefixtures("no_threads")
async def test_no_thread_is_an_error_of_the_machine() -> None:
    limiter = trio.CapacityLimiter(1)
    with pytest.raises(OSError, match="cannot start a thread") as raised:
        await in_thread(lambda: None, limiter)
    assert raised.value.errno == errno.EAGAIN
    assert limiter.borrowed_tokens == 0


async def test_a_journal_without_threads_refuses_and_goes_on(
    tmp_path: Path, no_threads: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path / "journal")
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        with pytest.raises(JournalUnavailable, match="cannot start a thread"):
            await journal.append(Gone("a"))
        no_threads.undo()
        await journal.append(Gone("b"))
        nursery.cancel_scope.cancel()
    journal.close()
