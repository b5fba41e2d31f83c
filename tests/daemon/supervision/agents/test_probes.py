"""When a program is asked about itself again, and by how many at once."""

from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.config import AgentConfig
from inferd_daemon.engines.agents.profile import AgentProbe, AgentProfile
from inferd_daemon.supervision.agents import probes as room
from inferd_daemon.supervision.agents.probes import DOUBT_S, AgentProbes

PROGRAM = Path("/opt/claude")
GOOD = AgentProbe(PROGRAM, "2.1", True, "")
LOGGED_OUT = AgentProbe(PROGRAM, "2.1", False, "log in")
MISSING = AgentProbe(None, None, None, "install it")


class Asked:
    """What a program would say, and what it was asked."""

    def __init__(self) -> None:
        self.says = GOOD
        self.times = 0
        self.named: list[str | None] = []

    async def probe(
        self, _profile: AgentProfile, _environment: object, configured: str | None
    ) -> AgentProbe:
        await trio.sleep(0.5)
        self.times += 1
        self.named.append(configured)
        return self.says


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    one = Asked()
    monkeypatch.setattr(room, "probe", one.probe)
    return one


async def test_those_who_ask_at_once_share_the_answer(
    asked: Asked, autojump_clock: trio.testing.MockClock
) -> None:
    probes = AgentProbes({"claude": AgentConfig(binary="/opt/claude")}, {})
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(lambda: probes.ask("claude", max_age_s=60))
        nursery.start_soon(lambda: probes.ask("codex", max_age_s=60))
    assert (asked.times, set(asked.named)) == (2, {"/opt/claude", None})


async def test_good_news_lasts_and_bad_news_does_not(
    asked: Asked, autojump_clock: trio.testing.MockClock
) -> None:
    probes = AgentProbes({}, {})
    for age_s, times in ((0, 1), (59, 1), (61, 2)):
        await trio.sleep(age_s)
        assert await probes.ask("claude", max_age_s=60) == GOOD
        assert asked.times == times
    for says in (LOGGED_OUT, MISSING):
        asked.says = says
        await trio.sleep(61)
        assert await probes.ask("claude", max_age_s=60) == says
        asked.says = GOOD
        await trio.sleep(DOUBT_S + 0.1)
        assert await probes.ask("claude", max_age_s=60) == GOOD


async def test_a_run_needs_only_the_program(
    asked: Asked, autojump_clock: trio.testing.MockClock
) -> None:
    probes = AgentProbes({}, {})
    asked.says = MISSING
    assert await probes.binary("claude") is None
    await trio.sleep(DOUBT_S + 0.1)
    asked.says = LOGGED_OUT
    assert await probes.binary("claude") == PROGRAM
    await trio.sleep(10_000)
    assert await probes.binary("claude") == PROGRAM
    assert asked.times == 2
