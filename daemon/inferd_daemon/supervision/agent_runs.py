"""Runs of CLI agents, one for each request: bounded per provider, on a model of ours where asked.

A run that its caller lets go of is killed. What it may use of this daemon it may use while it runs,
and it holds nothing longer than that: each is a task of its own, which no reader holds up beyond
its deadline.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from inferd_proto import ErrorCode

from ..backends.base import Batch, Capabilities, GenerateRequest, Readiness
from ..backends.chat_completions.failures import said
from ..engines.agents.conversation import read_messages
from ..engines.agents.dialogue import Failed
from ..engines.agents.failures import conclusive
from ..engines.agents.prompt_limits import require_within_limits
from ..engines.agents.request import AgentLimits, AgentRequest, AgentUpstream
from ..engines.secret import Secret
from ..errors import AnswerTooLong, BackendFault, CallerFault, RequestError
from .agents.backlog import Backlog
from .agents.blueprint import AgentBlueprint
from .agents.gate import Gate
from .agents.host import AgentHost
from .agents.run import UpstreamRefusal, run_agent
from .agents.run_queue import Party
from .leasing import Leasing
from .on_demand import ROOM_PATIENCE_S, OnDemand

if TYPE_CHECKING:
    from .agents.probes import AgentProbes


class StartTask(Protocol):
    """A nursery's `start_soon`."""

    def __call__(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Raises BackendFault where the daemon is stopping."""


Holding = Callable[[], AbstractAsyncContextManager[None]]


class AgentRuns:
    """All that run now, as tasks that `start` starts. `host` is where they are made."""

    def __init__(
        self, leasing: Leasing, probes: "AgentProbes", host: AgentHost, start: StartTask
    ) -> None:
        self.probes = probes
        self._start = start
        self._leasing = leasing
        self._host = host
        self._gates: dict[str, Gate] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        """Ended ones by provider and how: `ok`, `cancelled`, or the code of the error."""

    def all_running(self) -> dict[str, int]:
        """How many run now, by provider; of those that were asked for at all."""
        return {provider: gate.running for provider, gate in self._gates.items()}

    def all_waiting(self) -> dict[str, int]:
        """How many requests wait for a run, by provider."""
        return {provider: gate.waiting for provider, gate in self._gates.items()}

    def running(self, provider: str) -> int:
        """How many of a provider's run now."""
        return self._gate(provider).running

    async def generate(
        self,
        blueprint: AgentBlueprint,
        request: GenerateRequest,
        party: Party = None,
        holding: Holding = nullcontext,
    ) -> AsyncGenerator[Batch, None]:
        """One run's answer, `Finished` last. Use it within `contextlib.aclosing`.

        `party` is the uid of who asks by a lease; None where a route does. The agent's runtime is
        ready, or is had ready by `holding`, which the run is within. Raises RequestError.
        """
        backlog = Backlog()
        self._start(self._run, backlog, blueprint, request, party, holding)
        async with aclosing(backlog.take()) as batches:
            async for batch in batches:
                yield batch

    async def _run(
        self,
        backlog: Backlog,
        blueprint: AgentBlueprint,
        request: GenerateRequest,
        party: Party,
        holding: Holding,
    ) -> None:
        """The task of one run, whoever reads."""
        outcome = "cancelled"
        try:
            with backlog, backlog.scope:
                try:
                    async with holding(), self._gate(blueprint.spec.agent).turn(party):
                        await self._answer(backlog, blueprint, request)
                    outcome = "ok"
                except RequestError as error:
                    outcome = error.code.value
                    raise
        finally:
            self.requests[blueprint.spec.agent, outcome] += 1

    async def _answer(
        self, backlog: Backlog, blueprint: AgentBlueprint, request: GenerateRequest
    ) -> None:
        _require_askable(blueprint, request)
        system, turns = read_messages(request.messages)
        provider = blueprint.spec.agent
        config = self.probes.config(provider)
        async with self._upstream(blueprint) as way:
            binary = await self.probes.binary(provider)
            if binary is None:
                raise BackendFault(f"{provider} is not installed any more")
            asked = AgentRequest(
                model=blueprint.model_identity,
                turns=turns,
                system=system,
                max_tokens=request.sampling.max_tokens,
                thinking=request.thinking,
                upstream=way.upstream,
                environment=self.probes.environment,
                passes=tuple(config.environment),
                limits=AgentLimits(
                    deadline_s=config.deadline_s, max_text_bytes=config.max_output_bytes
                ),
            )
            run = run_agent(
                blueprint.profile, asked, binary=binary, host=self._host, refusal=way.refusal
            )
            deadline = trio.current_time() + config.deadline_s
            async with aclosing(run) as batches:
                async for batch in batches:
                    with trio.move_on_at(deadline) as waiting:
                        await backlog.put(batch)
                    if waiting.cancelled_caught:
                        raise conclusive(_read_too_slowly(provider, config.deadline_s))

    @asynccontextmanager
    async def _upstream(self, blueprint: AgentBlueprint) -> AsyncIterator["_Way"]:
        """Where it is to send its requests, with a key that only this run has."""
        needs, front = blueprint.needs, self._leasing.ensure.front
        if needs is None:
            yield _Way()
            return
        if front is None:
            raise BackendFault("this daemon has no HTTP front for an agent to reach a model by")
        with self._leasing.ensure.holding(needs):
            runtime = await self._leasing.ensure.have_ready(needs, ROOM_PATIENCE_S)
            address = await front.address()
            entrance = self._leasing.entrance

            def refusal() -> Failed | None:
                noted = entrance.refusal(given.ref)
                return None if noted is None else Failed(said(noted.body), noted.status)

            with entrance.passing(runtime.key) as given:
                root = f"{address}/leases/{given.ref}"
                try:
                    yield _Way(AgentUpstream(base_url=root, key=Secret(given.token)), refusal)
                finally:
                    self._leasing.calls.end(given.ref)

    def _gate(self, provider: str) -> Gate:
        gate = self._gates.get(provider)
        if gate is None:
            config = self.probes.config(provider)
            gate = self._gates[provider] = Gate(provider, config.max_runs, config.max_waiting)
        return gate


def _read_too_slowly(provider: str, deadline_s: float) -> RequestError:
    return AnswerTooLong(
        f"{provider}: its answer took longer than it may, {deadline_s:g} s (deadline_s): "
        "the client read too slowly",
        ErrorCode.TIMEOUT,
    )


def _require_askable(blueprint: AgentBlueprint, request: GenerateRequest) -> None:
    """Raises CallerFault."""
    if request.sampling.stop:
        raise CallerFault(f"`stop`: {blueprint.name} cannot be told where to stop")
    require_within_limits(request.messages)


class _Way(NamedTuple):
    """To a run's upstream, and what that had to say against it."""

    upstream: AgentUpstream | None = None
    refusal: UpstreamRefusal = lambda: None


class AgentRoute:
    """A configured agent as its backend sees it."""

    def __init__(self, blueprint: AgentBlueprint, leasing: Leasing, runs: AgentRuns) -> None:
        self.capabilities: Capabilities = blueprint.profile.capabilities
        self._blueprint = blueprint
        self._runtime = OnDemand(blueprint, leasing)
        self._runs = runs
        self._max_runs = runs.probes.config(blueprint.spec.agent).max_runs
        self._read_on = 0

    @property
    def slots(self) -> int:
        """As many as may run, and those whose run is over while their client still reads."""
        return self._max_runs + self._read_on

    def readiness(self) -> Readiness:
        """Ready where its program was seen, or is yet to be."""
        return self._runtime.readiness()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """One run. Raises RequestError, BackendFault where its program cannot be used."""
        _require_askable(self._blueprint, request)  # before anything is looked at
        ended = 0

        @asynccontextmanager
        async def holding() -> AsyncIterator[None]:
            nonlocal ended
            try:
                async with self._runtime.holding():
                    yield
            finally:
                ended = 1
                self._read_on += 1

        try:
            run = self._runs.generate(self._blueprint, request, holding=holding)
            async with aclosing(run) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._read_on -= ended
