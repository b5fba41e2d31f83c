"""One run of a CLI agent: from its private directories and its spawn to the last trace of it.

The caller's task drives it, batch by batch, and has to go on asking: the deadline is kept while it
does. When the caller lets go the whole run is killed at once.
"""

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import structlog
import trio

from inferd_proto import ErrorCode, Usage

from ...backends.base import Batch, Finished, TextDeltas, ThinkingDeltas
from ...backends.thread import in_thread
from ...engines.agents.binary import NOWHERE, is_native
from ...engines.agents.dialogue import AgentDialogue, AgentEvent, Failed
from ...engines.agents.environment import secrets_of
from ...engines.agents.failures import conclusive, explain
from ...engines.agents.profile import AgentProfile, Place, Plan
from ...engines.agents.request import AgentRequest
from ...engines.base import EngineFailure, Launch
from ...errors import AnswerTooLong, BackendFault, BackendSilence, CallerFault, RequestError
from ..processes.process import Process, spawn
from ..processes.stdio import Stdio
from ..processes.tie import short_tie
from .ending import end_run
from .host import AgentHost
from .place import fill_place, make_place

UpstreamRefusal = Callable[[], Failed | None]
RUN_VARIABLE = "INFERD_AGENT_RUN"
"""Tells what a run left behind, in whatever session, from everything else."""

_log = structlog.get_logger(__name__)


async def run_agent(
    profile: AgentProfile,
    request: AgentRequest,
    *,
    binary: Path,
    host: AgentHost,
    refusal: UpstreamRefusal = lambda: None,
) -> AsyncGenerator[Batch, None]:
    """The answer of one run as batches, `Finished` last. Use it within `contextlib.aclosing`.

    `refusal` knows how its upstream refused it, whatever the CLI makes of that. Raises RequestError
    before the first batch or after any: the CLI failed or was refused, wrote what it should not,
    took too long or said too much. Main thread only.
    """
    run = AgentRun(profile, request, binary=binary, host=host, refusal=refusal)
    try:
        await run.start()
        while not run.over:
            if batch := await run.next_batch():
                yield batch
        if run.failure is not None:
            raise run.failure
    finally:
        await run.close()


def launch_of(
    profile: AgentProfile, binary: Path, plan: Plan, place: Place, marks: Mapping[str, str]
) -> Launch:
    """What is spawned for a plan."""
    environment = {**plan.environment, **marks}
    if not profile.runs_programs and is_native(binary):
        environment["PATH"] = NOWHERE
    return Launch([str(binary), *plan.arguments], environment, directory=place.work)


class AgentRun:
    """One process and what it says. `start`, `next_batch` until `over`, always `close`."""

    def __init__(
        self,
        profile: AgentProfile,
        request: AgentRequest,
        *,
        binary: Path,
        host: AgentHost,
        refusal: UpstreamRefusal = lambda: None,
    ) -> None:
        self.over = False
        self.failure: RequestError | None = None
        """Why the answer is not whole, once it is over."""
        self._profile = profile
        self._request = request
        self._limits = request.limits
        self._binary = binary
        self._refusal = refusal
        self._token = secrets.token_hex(16)
        self._marks = {**host.marks, RUN_VARIABLE: self._token}
        name = f"run-{self._token[:12]}"
        self._root = host.directory / name
        self._scratch = None if host.scratch is None else host.scratch / name
        self._last_text_at = trio.current_time()
        self._deadline = self._last_text_at + self._limits.deadline_s
        self._dialogue: AgentDialogue | None = None
        self._stdio: Stdio | None = None
        self._process: Process | None = None
        self._tie: list[str] | None = None
        self._secrets: list[str] = []
        self._text_bytes = 0
        self._stdout_bytes = 0
        self._pieces = 0
        self._cut = False

    async def start(self) -> None:
        """Make its directories and spawn it. Raises RequestError."""
        try:
            launch = await in_thread(self._prepare, None)
            self._stdio = stdio = Stdio()
        except OSError as error:
            raise self._fault(f"cannot make ready for a run: {error.strerror}") from error
        ends = stdio.child
        try:
            self._process = spawn(
                launch,
                log_fd=ends.stderr,
                stdin_fd=ends.stdin,
                stdout_fd=ends.stdout,
                tie=self._tie,
            )
        except EngineFailure as error:
            raise self._fault(str(error)) from error
        finally:
            stdio.close_child_ends()
        stdio.watch(self._process.pidfd)
        self._speak()
        if not self._talk.keeps_stdin_open:
            stdio.close_stdin()

    async def next_batch(self) -> Batch:
        """What came next; empty where that was nothing to pass on. Sets `over` at the end."""
        stdio = self._pipes
        with trio.move_on_at(self._deadline):
            await stdio.wait()
        # One that writes without a pause is never seen to be waited for.
        if trio.current_time() >= self._deadline:
            self._fail(self._too_late())
            return []
        data = stdio.pump()
        if stdio.exited or stdio.ended:
            return await self._read_last(data)
        return self._read(data)

    async def close(self) -> None:
        """End the process and all that it started, remove its directories. Not cancellable."""
        # What runs on an upstream of ours has nothing to save: no login that it may just renew.
        politely = self.over and self.failure is None and self._request.upstream is None
        if politely and self._cut:
            politely = self._talk.interrupt()
            self._speak()
        left = await end_run(
            self._process,
            self._stdio,
            mark=f"{RUN_VARIABLE}={self._token}".encode(),
            roots=[root for root in (self._root, self._scratch) if root is not None],
            grace_s=self._limits.grace_s if politely else 0.0,
        )
        if left:
            _log.info(
                "processes that an agent left were ended", agent=self._profile.name, pids=left
            )

    def _prepare(self) -> Launch:
        place = make_place(self._root, self._scratch)
        plan = self._profile.plan(self._request, place)
        fill_place(place, plan)
        self._dialogue = self._profile.dialogue(self._request, place)
        self._secrets = secrets_of(plan.environment)
        self._tie = short_tie(str(self._binary))
        return launch_of(self._profile, self._binary, plan, place, self._marks)

    async def _read_last(self, data: bytes) -> Batch:
        """The process is gone, or will say no more: then it gets a moment to go."""
        batch = self._read(data)
        if self.over:
            return batch
        process = self._process
        assert process is not None  # its pipes were watched
        with trio.move_on_after(self._limits.grace_s):
            await process.wait()
        try:
            returncode = await process.kill()
        except EngineFailure as error:
            self._fail(self._fault(str(error)))
            return batch
        batch += self._read(self._pipes.rest())
        batch += self._take(self._talk.end(returncode, self._pipes.stderr))
        return batch

    def _read(self, data: bytes) -> Batch:
        self._stdout_bytes += len(data)
        if self._stdout_bytes > self._limits.max_stdout_bytes:
            self._fail(self._fault(f"it wrote more than {self._limits.max_stdout_bytes} bytes"))
            return []
        batch = self._take(self._talk.feed(data)) if data and not self.over else []
        self._speak()
        return batch

    def _speak(self) -> None:
        self._pipes.write(self._talk.take_input())

    def _take(self, events: list[AgentEvent]) -> Batch:
        batch: Batch = []
        for event in events:
            match event:
                case Failed():
                    self._fail(self._explain(event))
                case Finished():
                    batch.append(event)
                    self.over = True
                    self._cut = self._talk.cut
                case TextDeltas() | ThinkingDeltas():
                    batch += self._measure(event)
            if self.over:
                break
        return batch

    def _measure(self, event: TextDeltas | ThinkingDeltas) -> Batch:
        self._text_bytes += sum(len(delta.encode()) for delta in event.deltas)
        if self._text_bytes > self._limits.max_text_bytes:
            limit = self._limits.max_text_bytes
            words = f"{self._profile.name}: its answer is longer than {limit} bytes"
            advice = "ask for a shorter one, or have `max_output_bytes` of this agent raised"
            self._fail(CallerFault(f"{words}: {advice}"))
            return []
        self._last_text_at = trio.current_time()
        self._pieces += len(event.deltas)
        allowed, profile = self._request.max_tokens, self._profile
        counts = profile.pieces_are_short and not profile.passes_token_limit
        if allowed is None or not counts or self._pieces < allowed:
            return [event]
        # A piece is at least one token: so many pieces are never less than what was asked for.
        kept = event.deltas[: len(event.deltas) - (self._pieces - allowed)]
        self.over = self._cut = True
        # The upstream is stopped before it could tell what it counted.
        return [type(event)(kept), Finished("max_tokens", Usage(0, allowed), counted=False)]

    def _explain(self, failed: Failed) -> RequestError:
        local = self._request.upstream is not None
        return explain(
            self._refusal() or failed,
            self._profile,
            self._request.model,
            local=local,
            secrets=self._secrets,
        )

    def _fail(self, failure: RequestError) -> None:
        self.over = True
        self.failure = conclusive(failure)

    def _too_late(self) -> BackendFault:
        """Only one that has been silent for long is to blame: a long answer takes its time."""
        silent_s = trio.current_time() - self._last_text_at
        silent = not self._text_bytes or 2 * silent_s > self._limits.deadline_s
        words = f"{self._profile.name}: no answer within {self._limits.deadline_s:g} s"
        return (BackendSilence if silent else AnswerTooLong)(words, ErrorCode.TIMEOUT)

    def _fault(self, why: str) -> BackendFault:
        return BackendFault(f"{self._profile.name}: {why}")

    @property
    def _talk(self) -> AgentDialogue:
        assert self._dialogue is not None  # made by `start`
        return self._dialogue

    @property
    def _pipes(self) -> Stdio:
        assert self._stdio is not None  # made by `start`
        return self._stdio
