"""Runs of programs that stand in for a CLI and do what none should: each ends, and all is gone."""

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from inferd_daemon.backends.base import Batch, Finished, TextDeltas
from inferd_daemon.engines.agents.profile import Place, Plan
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.request import AgentLimits, AgentRequest, AgentUpstream, Turn
from inferd_daemon.engines.secret import Secret
from inferd_daemon.errors import AnswerTooLong, BackendSilence, CallerFault, RequestError
from inferd_daemon.supervision.agents import place
from inferd_daemon.supervision.agents.host import AgentHost
from inferd_daemon.supervision.agents.run import RUN_VARIABLE, launch_of, run_agent
from inferd_proto import ErrorCode, Usage
from tests.support.processes import bearing, is_alive, until

SAMPLES = Path(__file__).parents[2] / "engines/agents/samples"
OK = f"cat {SAMPLES}/claude-ok.jsonl"
HEAD = f"head -n 5 {SAMPLES}/claude-ok.jsonl"
"""As far as the first piece of text."""
HEAD_WITHOUT_TEXT = f"head -n 4 {SAMPLES}/claude-ok.jsonl"
HELLO = "Hello from fake ✓ upstream."


class Bench(NamedTuple):
    """Where a test's runs happen."""

    path: Path

    def cli(self, script: str) -> Path:
        program = self.path / "cli"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    @property
    def host(self) -> AgentHost:
        return AgentHost(self.path / "runs", {"INFERD_INSTANCE": str(self.path)})

    def running(self) -> list[int]:
        """Its processes; those of other tests, and of other daemons, bear another mark."""
        return bearing(f"INFERD_INSTANCE={self.path}")

    def left(self) -> list[str]:
        return [path.name for path in (self.path / "runs").iterdir()]

    def noted(self, name: str) -> str:
        return (self.path / name).read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def asked(provider: str = "claude", **fields: object) -> AgentRequest:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "FOREIGN": "x"}
    defaults: dict[str, object] = {
        "turns": (Turn("user", "Say hello."),),
        "upstream": AgentUpstream("http://127.0.0.1:1", Secret("sk-lease-key")),
        "environment": environment,
        "limits": AgentLimits(deadline_s=60, grace_s=0.3),
    }
    return AgentRequest("m", **{**defaults, **fields})  # type: ignore[arg-type]


async def collect(run: AsyncGenerator[Batch, None], batches: list[Batch]) -> None:
    async with aclosing(run):
        async for batch in run:
            batches.append(batch)  # noqa: PERF401 (kept where the run fails)


async def answer(
    bench: Bench, script: str, request: AgentRequest | None = None, provider: str = "claude"
) -> list[Batch]:
    """All batches of one run; nothing is left of it."""
    batches: list[Batch] = []
    run = run_agent(
        PROFILES[provider], request or asked(), binary=bench.cli(script), host=bench.host
    )
    try:
        with trio.fail_after(90):
            await collect(run, batches)
    finally:
        assert bench.left() == []
        assert bench.running() == []
    return batches


async def failure(bench: Bench, script: str, request: AgentRequest | None = None) -> RequestError:
    with pytest.raises(RequestError) as failed:
        await answer(bench, script, request)
    return failed.value


def text_of(batches: list[Batch]) -> str:
    events = [event for batch in batches for event in batch]
    return "".join(d for event in events if isinstance(event, TextDeltas) for d in event.deltas)


async def test_an_answer_comes_as_the_cli_writes_it(bench: Bench) -> None:
    goes_on = bench.path / "goes-on"
    wait = f"while ! test -e {goes_on}; do sleep 0.01; done"
    cli = bench.cli(f"{HEAD}; {wait}; tail -n +6 {SAMPLES}/claude-ok.jsonl")
    run = run_agent(PROFILES["claude"], asked(), binary=cli, host=bench.host)
    async with aclosing(run):
        batches = [await anext(run)]
        assert text_of(batches) == "Hel"
        goes_on.touch()
        await collect(run, batches)
    assert text_of(batches) == HELLO
    assert batches[-1][-1] == Finished("end_turn", Usage(14, 5))


async def test_what_a_run_is_given(bench: Bench) -> None:
    here = bench.path
    script = (
        f"cat > {here}/stdin; pwd > {here}/pwd; ls -A > {here}/listing; env > {here}/env;"
        f'stat -c %a "$HOME" . "$TMPDIR" > {here}/modes; echo "$@" > {here}/argv;'
        f'cat "$HOME/system.md" > {here}/system; {OK}'
    )
    turns = (Turn("user", "A SECRET PROMPT"),)
    await answer(bench, script, asked(turns=turns, system="A SECRET SYSTEM"))
    assert bench.noted("stdin") == "A SECRET PROMPT"
    assert bench.noted("system") == "A SECRET SYSTEM"
    assert bench.noted("listing") == ""
    assert bench.noted("modes").split() == ["700"] * 3
    assert "SECRET" not in bench.noted("argv")
    assert Path(bench.noted("pwd").strip()).parent.parent == bench.host.directory
    variables = dict(line.split("=", 1) for line in bench.noted("env").splitlines())
    assert variables["INFERD_INSTANCE"] == str(here)
    assert variables[RUN_VARIABLE]
    assert variables["HOME"].startswith(str(bench.host.directory))
    assert "FOREIGN" not in variables


async def scratch_of(bench: Bench, host: AgentHost) -> list[str]:
    """Path and mode of the scratch directory that a run of codex had."""
    script = (
        f'stat -c "%n %a" "$CODEX_SQLITE_HOME" > {bench.path}/scratch; '
        f'touch "$CODEX_SQLITE_HOME/x"; cat {SAMPLES}/codex-ok.jsonl'
    )
    run = run_agent(PROFILES["codex"], asked(), binary=bench.cli(script), host=host)
    await collect(run, [])
    assert bench.left() == []
    return bench.noted("scratch").split()


async def test_scratch_is_apart_where_the_host_has_a_place_for_it(bench: Bench) -> None:
    memory = bench.path / "memory"
    host = AgentHost(bench.host.directory, scratch=memory)
    path, mode = await scratch_of(bench, host)
    assert (Path(path).parent, mode) == (memory, "700")
    assert list(memory.iterdir()) == []


async def test_scratch_is_with_the_rest_where_it_can_be_nowhere_else(bench: Bench) -> None:
    in_the_way = bench.path / "memory"
    in_the_way.touch()
    for host in (bench.host, AgentHost(bench.host.directory, scratch=in_the_way)):
        path, mode = await scratch_of(bench, host)
        assert (Path(path).parent.parent, mode) == (host.directory, "700")


async def test_scratch_is_with_the_rest_where_memory_is_short(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "SCRATCH_BYTES", 1 << 60)
    memory = bench.path / "memory"
    path, _ = await scratch_of(bench, AgentHost(bench.host.directory, scratch=memory))
    assert Path(path).parent.parent == bench.host.directory
    assert list(memory.iterdir()) == []


def test_a_native_program_that_needs_no_other_finds_none(bench: Bench) -> None:
    here = Place(*[bench.path] * 4)
    plan = Plan([], {"PATH": "/usr/bin"})
    script, native = bench.cli("exit"), Path(sys.executable).resolve()
    for name, program, path in (
        ("codex", native, os.devnull),
        ("codex", script, "/usr/bin"),
        ("codex", Path("/no/such/cli"), "/usr/bin"),
        ("claude", native, "/usr/bin"),
    ):
        launch = launch_of(PROFILES[name], program, plan, here, {"MARK": "x"})
        assert launch.environment == {"PATH": path, "MARK": "x"}


async def test_a_long_prompt_arrives_whole(bench: Bench) -> None:
    text = "0123456789" * 100_000
    await answer(
        bench, f"sleep 0.1; wc -c > {bench.path}/n; {OK}", asked(turns=(Turn("user", text),))
    )
    assert bench.noted("n").strip() == "1000000"


async def test_a_cli_that_does_not_read_may_answer(bench: Bench) -> None:
    turns = (Turn("user", "x" * 1_000_000),)
    assert text_of(await answer(bench, f"exec <&-; {OK}", asked(turns=turns))) == HELLO


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'Segmentation fault'", "a line of 18 bytes that is no event"),
        ("exit 0", "ended with exit code 0 before its answer did"),
        (f"{HEAD}; exit 0", "ended with exit code 0 before its answer did"),
        (f"{HEAD}; printf '%s' '{{\"type\":'", "in the middle of a line"),
        ("echo 'no such flag --tools' >&2; exit 2", "exit code 2 before its answer did: no such"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("exec /no/such/program", "exit code 127"),
        ("echo 'bad key sk-lease-key' >&2; exit 1", "bad key ***"),
        (f"cat {SAMPLES}/claude-e500.jsonl; exit 0", "its upstream answered 500"),
        (f"cat {SAMPLES}/claude-e401.jsonl; exit 1", "refused the key of this run"),
    ],
)
async def test_no_answer_is_a_typed_error(bench: Bench, script: str, says: str) -> None:
    error = await failure(bench, script)
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.message.startswith("claude")
    assert says in error.message


async def test_a_program_that_is_not_there(bench: Bench) -> None:
    run = run_agent(PROFILES["claude"], asked(), binary=Path("/no/such/cli"), host=bench.host)
    with pytest.raises(RequestError, match=r"exit code 127 .*/no/such/cli"):
        async with aclosing(run):
            await anext(run)
    assert bench.left() == []


async def test_a_program_that_is_none_is_no_script_either(bench: Bench) -> None:
    program = bench.cli("")
    program.write_text(f"touch {bench.path}/ran\n")
    run = run_agent(PROFILES["claude"], asked(), binary=program, host=bench.host)
    with pytest.raises(RequestError, match=r"exit code 127 .*Exec format error"):
        await anext(run)
    assert not (bench.path / "ran").exists()


async def test_what_came_before_an_error_counts(bench: Bench) -> None:
    run = run_agent(
        PROFILES["claude"],
        asked(),
        binary=bench.cli(f"cat {SAMPLES}/claude-drop.jsonl"),
        host=bench.host,
    )
    batches: list[Batch] = []
    with pytest.raises(RequestError, match="ECONNRESET"):
        await collect(run, batches)
    assert text_of(batches) == "Hello "


async def test_a_run_has_a_deadline(bench: Bench) -> None:
    began = trio.current_time()
    limits = AgentLimits(deadline_s=0.4, grace_s=30)
    script = f"trap '' TERM; {HEAD_WITHOUT_TEXT}; sleep 1000"
    error = await failure(bench, script, asked(limits=limits))
    assert error.code is ErrorCode.TIMEOUT
    assert "no answer within 0.4 s" in error.message
    assert isinstance(error, BackendSilence)
    assert not error.again
    assert trio.current_time() - began < 20


WITHOUT_END = AgentLimits(deadline_s=60, max_text_bytes=1 << 50, max_stdout_bytes=1 << 50)


async def test_one_that_writes_without_a_pause_has_a_deadline(
    bench: Bench, mock_clock: trio.testing.MockClock
) -> None:
    again = f"sed -n 5p {SAMPLES}/claude-ok.jsonl"
    cli = bench.cli(f'{HEAD}; yes "$({again})"')
    run = run_agent(PROFILES["claude"], asked(limits=WITHOUT_END), binary=cli, host=bench.host)
    async with aclosing(run):
        for _ in range(3):
            assert text_of([await anext(run)])
            mock_clock.jump(20)
        with pytest.raises(AnswerTooLong) as failed:  # it works: it is nobody's fault
            await anext(run)
    assert failed.value.code is ErrorCode.TIMEOUT
    assert bench.running() == []


async def test_one_that_falls_silent_after_its_first_word_is_to_blame(
    bench: Bench, mock_clock: trio.testing.MockClock
) -> None:
    cli = bench.cli(f"{HEAD}; sleep 1000")
    run = run_agent(PROFILES["claude"], asked(limits=WITHOUT_END), binary=cli, host=bench.host)
    async with aclosing(run):
        assert text_of([await anext(run)]) == "Hel"
        mock_clock.jump(60)
        with pytest.raises(BackendSilence):
            await anext(run)
    assert bench.running() == []


async def test_an_answer_has_a_greatest_length(bench: Bench) -> None:
    limits = AgentLimits(deadline_s=60, max_text_bytes=10)
    error = await failure(bench, OK, asked(limits=limits))
    assert "its answer is longer than 10 bytes" in error.message
    assert "`max_output_bytes`" in error.message
    assert isinstance(error, CallerFault)
    assert not error.again


@pytest.mark.parametrize("flood", ["yes", "yes '{}'", "cat /dev/zero"])
async def test_a_flood_has_an_end(bench: Bench, flood: str) -> None:
    limits = AgentLimits(deadline_s=60, max_stdout_bytes=1 << 20)
    error = await failure(bench, flood, asked(limits=limits))
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE


async def test_a_flood_of_complaints_holds_nobody_up(bench: Bench) -> None:
    script = f"{HEAD}; yes complaint | head -c 5000000 >&2; tail -n +6 {SAMPLES}/claude-ok.jsonl"
    assert text_of(await answer(bench, script)) == HELLO


STAYS = f"trap '' TERM; {OK}; while :; do sleep 0.05; done"


async def test_a_cli_that_stays_is_ended(bench: Bench) -> None:
    """With a login of its own it gets a moment, SIGTERM, another moment, SIGKILL."""
    began = trio.current_time()
    assert text_of(await answer(bench, STAYS, asked(upstream=None))) == HELLO
    assert 0.5 < trio.current_time() - began < 20


async def test_a_cli_on_a_local_model_is_not_waited_for(bench: Bench) -> None:
    began = trio.current_time()
    request = asked(limits=AgentLimits(deadline_s=60, grace_s=30))
    assert text_of(await answer(bench, STAYS, request)) == HELLO
    assert trio.current_time() - began < 20


async def test_a_cli_with_a_login_may_save_it(
    bench: Bench, mock_clock: trio.testing.MockClock
) -> None:
    """After SIGTERM it has its moment, however long that takes on a machine that is busy."""
    saves = f"trap 'sleep 0.2; touch {bench.path}/saved; exit' TERM; {OK}"
    cli = bench.cli(f"{saves}; while :; do sleep 0.05; done")
    run = run_agent(PROFILES["claude"], asked(upstream=None), binary=cli, host=bench.host)
    while not isinstance((await anext(run))[-1], Finished):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.running() != []
        mock_clock.jump(0.3)
    assert (bench.path / "saved").exists()
    assert bench.running() == []


async def test_a_cli_that_goes_on_by_itself_is_stopped_at_the_limit(bench: Bench) -> None:
    script = (
        f"head -n 13 {SAMPLES}/claude-maxtok.jsonl; sleep 20; touch {bench.path}/went-on; sleep 9"
    )
    began = trio.current_time()
    batches = await answer(bench, script)
    assert batches[-1][-1] == Finished("max_tokens", Usage(14, 5))
    assert trio.current_time() - began < 15
    assert not (bench.path / "went-on").exists()


async def test_a_cli_that_is_not_told_a_limit_is_stopped_at_it(bench: Bench) -> None:
    upstream = None
    request = asked(upstream=upstream, max_tokens=3)
    batches = await answer(bench, f"cat {SAMPLES}/gemini-ok.jsonl; sleep 9", request, "gemini")
    assert text_of(batches) == "Hello from "
    assert batches[-1][-1] == Finished("max_tokens", Usage(0, 3), counted=False)


async def test_whole_messages_are_no_measure_of_a_limit(bench: Bench) -> None:
    request = replace(asked(upstream=None, max_tokens=1), model="low")
    batches = await answer(bench, f"cat {SAMPLES}/amp-made-ok.jsonl", request, "amp")
    assert text_of(batches) == HELLO
    assert batches[-1][-1] == Finished("end_turn", Usage(0, 0), counted=False)


async def test_closed_output_is_not_waited_for(bench: Bench) -> None:
    error = await failure(bench, "trap '' TERM; exec >&- 2>&-; sleep 1000")
    assert "SIGKILL before its answer did" in error.message


async def test_a_child_that_holds_the_output_is_not_waited_for(bench: Bench) -> None:
    began = trio.current_time()
    assert text_of(await answer(bench, f"sleep 1000 & {OK}")) == HELLO
    error = await failure(bench, "sleep 1000 & exit 3")
    assert "exit code 3" in error.message
    assert trio.current_time() - began < 30


@pytest.mark.parametrize("ending", [OK, "exit 1", "echo garbage; sleep 1000"])
async def test_a_forked_daemon_is_found(bench: Bench, ending: str) -> None:
    daemon = (
        'setsid sh -c \'exec </dev/null >/dev/null 2>&1; cd /; (trap "" TERM HUP; sleep 1000) & '
        f"echo $! > {bench.path}/pid; sleep 1000' & while ! test -s {bench.path}/pid; do :; done"
    )
    run = run_agent(
        PROFILES["claude"], asked(), binary=bench.cli(f"{daemon}; {ending}"), host=bench.host
    )
    if ending == OK:
        async with aclosing(run):
            async for _ in run:
                pass
    else:
        with pytest.raises(RequestError):
            await anext(run)
        await run.aclose()
    assert not is_alive(int(bench.noted("pid")))
    assert bench.running() == []


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.1])
async def test_a_cancelled_run_is_gone_at_once(bench: Bench, seconds: float) -> None:
    script = f"trap '' TERM INT; sleep 1000 & setsid sleep 1000 & {HEAD}; sleep 1000"
    run = run_agent(PROFILES["claude"], asked(), binary=bench.cli(script), host=bench.host)
    with trio.move_on_after(seconds):
        async with aclosing(run):
            async for _ in run:
                pass
    assert bench.running() == []
    assert not bench.host.directory.exists() or bench.left() == []


async def test_who_leaves_in_the_middle_leaves_nothing(bench: Bench) -> None:
    script = f"echo $$ > {bench.path}/pid; {HEAD}; sleep 1000"
    run = run_agent(PROFILES["claude"], asked(), binary=bench.cli(script), host=bench.host)
    async with aclosing(run):
        assert text_of([await anext(run)]) == "Hel"
        assert is_alive(int(bench.noted("pid")))
    assert not is_alive(int(bench.noted("pid")))


async def test_a_stopped_cli_can_be_ended(bench: Bench) -> None:
    script = f"echo $$ > {bench.path}/pid; {HEAD}; kill -STOP $$"
    run = run_agent(PROFILES["claude"], asked(), binary=bench.cli(script), host=bench.host)
    async with aclosing(run):
        await anext(run)
        pid = int(bench.noted("pid"))
        await until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] == "T")
    assert not is_alive(pid)


async def test_a_request_that_no_plan_takes_starts_nothing(bench: Bench) -> None:
    request = asked(upstream=None)
    with pytest.raises(CallerFault, match="amp has modes"):
        await answer(bench, f"touch {bench.path}/started", request, "amp")
    assert not (bench.path / "started").exists()


async def test_no_room_for_its_directories_is_a_typed_error(bench: Bench) -> None:
    (bench.path / "runs").write_text("in the way")
    run = run_agent(PROFILES["claude"], asked(), binary=bench.cli(OK), host=bench.host)
    with pytest.raises(RequestError, match="cannot make ready for a run"):
        await anext(run)


async def test_many_runs_leave_no_descriptor(bench: Bench) -> None:
    await answer(bench, OK)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        await answer(bench, OK)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
