"""The life of a service that someone else runs, by what looks at it tell."""

from pathlib import Path

import trio
import trio.testing

from inferd_daemon.backends.runtime import Endpoint, ModelFacts
from inferd_daemon.engines.attached.service import Attachable, Sight
from inferd_daemon.engines.base import Health, Timing
from inferd_daemon.supervision.processes.logs import RuntimeLog
from inferd_daemon.supervision.runtimes.attachment import RETRIES, UNFORESEEN, Attachment
from inferd_daemon.supervision.runtimes.machine import State


class ScriptedService(Attachable):
    """Shows `next`, or fails with it."""

    name = "scripted"

    def __init__(self) -> None:
        self.timing = Timing(
            ready_timeout_s=0.5, readiness_interval_s=0.1, health_interval_s=1, stop_timeout_s=1
        )
        self.endpoint = Endpoint(port=1)
        self.next: Sight | Exception = Sight(Health.HEALTHY)
        self.sight = None

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def observe(self) -> Sight:
        await trio.lowlevel.checkpoint()
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    async def learn(self) -> ModelFacts:
        await trio.lowlevel.checkpoint()
        return ModelFacts()


async def started(nursery: trio.Nursery, directory: Path) -> tuple[ScriptedService, Attachment]:
    service = ScriptedService()
    attachment = Attachment(service, RuntimeLog(directory / "log"), policy=RETRIES)
    await nursery.start(attachment.run)
    attachment.start()
    await until(attachment, State.READY)
    return service, attachment


async def until(attachment: Attachment, state: State) -> None:
    with trio.fail_after(60):
        while attachment.state is not state:
            await attachment.wait_changed()


async def test_a_fault_that_nobody_foresaw_is_a_failed_look(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        service, attachment = await started(nursery, tmp_path)
        service.next = LookupError("nobody foresaw it")
        await until(attachment, State.RESTARTING)
        assert attachment.status().last_error == UNFORESEEN
        service.next = Sight(Health.HEALTHY)
        await until(attachment, State.READY)
        assert attachment.status().last_error is None
        nursery.cancel_scope.cancel()


async def test_what_is_wrong_is_what_was_seen_last(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        service, attachment = await started(nursery, tmp_path)
        for words in ("refused", "hangs"):
            service.next = Sight(Health.NO_ANSWER, words)
            await until(attachment, State.UNAVAILABLE)
            assert attachment.status().last_error == words
            service.next = Sight(Health.HEALTHY)
            await until(attachment, State.READY)
            assert attachment.status().last_error is None
        nursery.cancel_scope.cancel()
