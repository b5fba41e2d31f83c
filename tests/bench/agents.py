"""What a run of an agent costs above the program's own time, side by side.

    python -m tests.bench.agents [RUNS]

A stand-in that answers at once, then each real CLI that is there at a scripted upstream. `alone` is
the same program with the same arguments, environment and input. Directories are made in $TMPDIR
and, as the daemon has it in its runtime directory, in memory.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import trio

from inferd_daemon.engines.agents.binary import find_binary
from inferd_daemon.engines.agents.profile import AgentProfile
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.request import AgentRequest
from inferd_daemon.errors import BackendFault
from inferd_daemon.supervision.agents.host import AgentHost
from inferd_daemon.supervision.agents.place import fill_place, make_place, remove_place
from inferd_daemon.supervision.agents.run import launch_of, run_agent
from tests.support.agent_clis import REAL, request_to
from tests.support.model_answers import PROTOCOLS
from tests.support.scripted_upstream import serve

MEMORY = "/dev/shm"
SAMPLE = Path(__file__).parents[1] / "daemon/engines/agents/samples/claude-ok.jsonl"


class Case(NamedTuple):
    """One program, and what it is asked."""

    name: str
    profile: AgentProfile
    binary: Path
    request: AgentRequest


class Roots(NamedTuple):
    """Where runs have their directories."""

    disk: Path
    memory: Path


def alone(case: Case, roots: Roots, name: str) -> tuple[float, float]:
    """Seconds from the spawn to the last event, and to the exit."""
    made = Roots(*(root / name for root in roots))
    place = make_place(*made)
    plan = case.profile.plan(case.request, place)
    fill_place(place, plan)
    talk = case.profile.dialogue(case.request, place)
    launch = launch_of(case.profile, case.binary, plan, place, {})
    began = time.perf_counter()
    with subprocess.Popen(
        launch.argv,
        cwd=launch.directory,
        env=launch.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while not talk.over:
            if not process.stdin.closed:
                process.stdin.write(talk.take_input())
                process.stdin.flush()
            if not talk.keeps_stdin_open:
                process.stdin.close()
            talk.feed(os.read(process.stdout.fileno(), 65536))
        answered = time.perf_counter() - began
        process.stdin.close()
        process.wait()
    ended = time.perf_counter() - began
    for root in made:
        remove_place(root)
    return answered, ended


async def by_daemon(case: Case, roots: Roots) -> tuple[float, float]:
    """Seconds to the last batch, and to the end of everything."""
    began = time.perf_counter()
    answered = began
    host = AgentHost(roots.disk / "runs", scratch=roots.memory / "runs")
    async for _ in run_agent(case.profile, case.request, binary=case.binary, host=host):
        answered = time.perf_counter()
    return answered - began, time.perf_counter() - began


async def measure(case: Case, runs: int, roots: Roots) -> None:
    """Alternating, after one of each that is not counted."""
    direct: list[tuple[float, float]] = []
    daemon: list[tuple[float, float]] = []
    for number in range(runs + 1):
        once = await trio.to_thread.run_sync(alone, case, roots, f"alone-{number}")
        other = await by_daemon(case, roots)
        if number:
            direct.append(once)
            daemon.append(other)
    for name, index in (("answered", 0), ("all gone", 1)):
        own = statistics.median(times[index] for times in direct) * 1000
        ours = statistics.median(times[index] for times in daemon) * 1000
        print(
            f"{case.name:9} {name}  alone {own:7.1f} ms  a run {ours:7.1f} ms ({ours - own:+.1f})"
        )


async def main(runs: int) -> None:
    """Prints one line for each program."""
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory(dir=MEMORY) as scratch,
    ):
        root = Path(name)
        roots = Roots(root, Path(scratch))
        stand_in = root / "stand-in"
        stand_in.write_text(f"#!/bin/sh\ncat > /dev/null\ncat {SAMPLE}\n")
        stand_in.chmod(0o755)
        request = request_to("http://127.0.0.1:1")
        await measure(Case("stand-in", PROFILES["claude"], stand_in, request), runs * 5, roots)
        for provider in REAL:
            try:
                binary = find_binary(PROFILES[provider], os.environ)
            except BackendFault as error:
                print(error.message)
                continue
            protocol = PROTOCOLS[provider]
            scripts = [*protocol.prelude(), protocol.answer()] * (2 * runs + 2)
            async with AsyncExitStack() as stack:
                upstream = await stack.enter_async_context(serve(root, *scripts, tcp=True))
                case = Case(provider, PROFILES[provider], binary, request_to(upstream.url))
                await measure(case, runs, roots)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 10)
