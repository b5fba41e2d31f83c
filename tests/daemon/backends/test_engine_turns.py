"""Turns at a real engine: whatever others send and abandon, a bystander's request ends soon."""

import os
import random
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends.base import GenerateRequest
from inferd_daemon.backends.engine_turns import LET_GO_S, EngineTurns
from inferd_daemon.backends.transport import Connection
from inferd_daemon.errors import RequestError
from tests.support import models
from tests.support.serving import Serving, answer, ask, serving

BYSTANDER_S = 30.0
"""An abandoned request keeps its turn for a second at most; the rest is for a loaded machine."""
NEVER_S = 600.0
"""In place of `LET_GO_S`: who only gets on because a turn was given up for lost is too late."""
STORM_S = 3.0


@asynccontextmanager
async def engine(directory: Path, parallel: int) -> AsyncGenerator[Serving, None]:
    """A worker whose prompts take a moment and whose answers do not end."""
    model = directory / "endless.gguf"
    models.build_generate_model(model, layers=2, feed_forward=512)
    # its health is not the matter here, and a worker may be stopped for a while
    async with serving(
        directory, model, parallel=parallel, ctx_size=8192, health_interval_s=60.0
    ) as endless:
        yield endless


@pytest.fixture
def never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn ends when the engine lets go, and not by the clock."""
    monkeypatch.setattr("inferd_daemon.backends.engine_turns.LET_GO_S", NEVER_S)


async def abandon(endless: Serving, after_s: float, request: GenerateRequest) -> bool:
    """Send a request and give it up; whether anything came of it before."""
    with trio.move_on_after(after_s) as scope:
        try:
            async with aclosing(endless.backend.generate(request)) as batches:
                async for _ in batches:
                    pass
        except RequestError:
            return True
    return not scope.cancelled_caught


@pytest.mark.usefixtures("never_given_up")
async def test_an_abandoned_prompt_and_an_abandoned_bad_grammar_leave_nobody_behind(
    tmp_path: Path,
) -> None:
    async with engine(tmp_path, parallel=1) as endless:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: abandon(endless, 0.2, ask(text="y " * 3000)))
            await trio.sleep(0.05)
            nursery.start_soon(lambda: abandon(endless, 0.1, ask(grammar="root ::= (((")))
        with trio.fail_after(BYSTANDER_S):
            assert (await answer(endless.backend, ask(max_tokens=2))).finished


@pytest.mark.usefixtures("never_given_up")
@pytest.mark.parametrize("parallel", [1, 3])
async def test_bystanders_of_a_storm_of_cancels_are_answered_in_time(
    tmp_path: Path, parallel: int
) -> None:
    dice = random.Random(parallel)
    async with engine(tmp_path, parallel) as endless:

        async def storm() -> None:
            while True:
                if dice.random() < 0.3:
                    await abandon(endless, dice.random() * 0.03, ask(grammar="root ::= ((("))
                else:
                    text = "y " * dice.choice((1, 200, 1500))
                    await abandon(endless, dice.random() * 0.03, ask(text=text))

        async with trio.open_nursery() as nursery:
            for _ in range(2 * parallel):
                nursery.start_soon(storm)
            storm_ends = trio.current_time() + STORM_S
            await trio.sleep(STORM_S / 10)
            while trio.current_time() < storm_ends:
                with trio.fail_after(BYSTANDER_S):
                    await answer(endless.backend, ask(max_tokens=2))
            nursery.cancel_scope.cancel()
        with trio.fail_after(BYSTANDER_S):
            await answer(endless.backend, ask(max_tokens=2))
            while await endless.busy_slots():
                pass
        assert endless.supervisor.readiness().ready


@pytest.mark.usefixtures("never_given_up")
async def test_the_caller_of_a_cancelled_request_waits_for_nothing(tmp_path: Path) -> None:
    async with engine(tmp_path, parallel=1) as endless:
        os.kill(endless.pid, signal.SIGSTOP)
        try:
            with trio.fail_after(BYSTANDER_S):  # the engine itself would never let go
                assert not await abandon(endless, 0.1, ask(text="y " * 3000))
        finally:
            os.kill(endless.pid, signal.SIGCONT)


# -- without an engine ---------------------------------------------------------------------


async def unknown() -> None:
    """An engine that does not say how many of its slots are busy."""


def pair() -> tuple[Connection, socket.socket]:
    ours, peers = socket.socketpair()
    ours.setblocking(False)
    return Connection(ours), peers


async def leave_one(turns: EngineTurns) -> socket.socket:
    connection, peer = pair()
    async with turns.turn():
        turns.leave(connection)
    return peer


async def test_a_turn_lasts_until_the_engine_closes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    turns = EngineTurns(1, unknown)
    nursery.start_soon(turns.run)
    await trio.testing.wait_all_tasks_blocked()
    with await leave_one(turns) as peer:
        assert peer.recv(1) == b""
        with trio.move_on_after(LET_GO_S / 2) as early:
            async with turns.turn():
                pass
        assert early.cancelled_caught
    async with turns.turn():
        assert trio.current_time() < LET_GO_S


async def test_an_engine_that_never_closes_costs_its_turn_for_a_while_only(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    turns = EngineTurns(1, unknown)
    nursery.start_soon(turns.run)
    await trio.testing.wait_all_tasks_blocked()
    with await leave_one(turns):
        began = trio.current_time()
        async with turns.turn():
            assert trio.current_time() - began == pytest.approx(LET_GO_S)


async def test_the_end_of_the_backend_closes_what_was_left_and_frees_its_turn() -> None:
    turns = EngineTurns(1, unknown)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        await trio.testing.wait_all_tasks_blocked()
        peer = await leave_one(turns)
        nursery.cancel_scope.cancel()
    with peer, trio.fail_after(10):
        async with turns.turn():
            assert peer.recv(1) == b""
        with await leave_one(turns) as late:  # nobody owns it: closed at once
            async with turns.turn():
                assert late.recv(1) == b""
