"""An agent's runtime without a process: ready when its program is, and looked at while it lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.engines.agents.profile import AgentProbe
from inferd_daemon.supervision.agents import probes as room
from inferd_daemon.supervision.agents.blueprint import read_blueprint
from inferd_daemon.supervision.agents.life import AgentLife
from inferd_daemon.supervision.agents.probes import AgentProbes
from inferd_daemon.supervision.runtimes.blueprint import Blueprint, Hooks
from inferd_daemon.supervision.runtimes.machine import State
from inferd_proto import JsonObject
from tests.support.lone_runtimes import SleepBlueprint

GOOD = AgentProbe(Path("/opt/claude"), "2.1", True, "")
LOGGED_OUT = AgentProbe(Path("/opt/claude"), "2.1", False, "claude: logged out: log in")
MISSING = AgentProbe(None, None, None, "claude is not installed: install it")


class Program:
    """What is found of it now."""

    def __init__(self, found: AgentProbe) -> None:
        self.found = found
        self.looks = 0

    async def probe(self, *_: object) -> AgentProbe:
        await trio.lowlevel.checkpoint()
        self.looks += 1
        return self.found


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    one = Program(GOOD)
    monkeypatch.setattr(room, "probe", one.probe)
    return one


@asynccontextmanager
async def living(spec: JsonObject) -> AsyncIterator[AgentLife]:
    def upstream_of(_route: str) -> Blueprint:
        upstream = SleepBlueprint.__new__(SleepBlueprint)
        upstream.model_identity = upstream.name = "qwen"
        return upstream

    life = read_blueprint(spec, AgentProbes({}, {}), upstream_of).make(Hooks())
    async with trio.open_nursery() as nursery:
        await nursery.start(life.run)
        life.start()
        yield life
        nursery.cancel_scope.cancel()


async def until(life: AgentLife, state: State) -> None:
    with trio.fail_after(2000):
        while life.state is not state:
            await life.wait_changed()


OPUS: JsonObject = {"agent": "claude", "model": "opus"}
LOCAL: JsonObject = {"agent": "claude", "upstream": "local"}


async def test_it_is_ready_when_its_program_is_and_follows_it(
    program: Program, autojump_clock: trio.testing.MockClock
) -> None:
    async with living(OPUS) as life:
        await until(life, State.READY)
        assert life.process is None
        assert life.facts is not None
        assert life.facts.model == "opus"
        program.found = LOGGED_OUT
        await until(life, State.UNAVAILABLE)
        assert life.status().last_error == LOGGED_OUT.reason
        program.found = GOOD
        before = trio.current_time()
        await until(life, State.READY)
        assert trio.current_time() - before < 60
        life.stop()
        await until(life, State.STOPPED)


@pytest.mark.parametrize("found", [LOGGED_OUT, MISSING])
async def test_what_cannot_work_is_told_and_tried_again_later(
    found: AgentProbe, program: Program, autojump_clock: trio.testing.MockClock
) -> None:
    program.found = found
    async with living(OPUS) as life:
        await until(life, State.RESTARTING)
        assert life.machine.last_failure is not None
        assert life.machine.last_failure.reason == found.reason
        program.found = GOOD
        await until(life, State.READY)


async def test_on_a_route_no_login_is_needed(
    program: Program, autojump_clock: trio.testing.MockClock
) -> None:
    program.found = LOGGED_OUT
    async with living(LOCAL) as life:
        await until(life, State.READY)
        program.found = MISSING
        await until(life, State.UNAVAILABLE)


async def test_a_program_is_looked_at_seldom_while_all_is_well(
    program: Program, autojump_clock: trio.testing.MockClock
) -> None:
    async with living(OPUS) as life:
        await until(life, State.READY)
        await trio.sleep(3600)
        assert 6 <= program.looks <= 14
