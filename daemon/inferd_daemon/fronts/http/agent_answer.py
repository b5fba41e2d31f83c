"""A chat completion by a run of a CLI agent, as server-sent events or one object."""

import secrets
import time
from contextlib import aclosing

from ...backends.base import Batch
from ...supervision.agent_runs import AgentRuns
from ...supervision.agents.blueprint import AgentBlueprint
from ...supervision.leases.entrance import Entry
from ...supervision.leases.relay import away
from ...supervision.leasing import Leasing
from ...supervision.runtimes.machine import State
from .agent_request import AgentAsked
from .lease_answer import LeaseAnswer, Outgoing
from .openai.chat_answer import ChatAnswer
from .openai.failures import OPENAI

EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class AgentAnswer(LeaseAnswer):
    """One run under a lease. It ends with the lease, and when the client leaves."""

    def __init__(
        self,
        leasing: Leasing,
        entry: Entry,
        runs: AgentRuns,
        blueprint: AgentBlueprint,
        asked: AgentAsked,
    ) -> None:
        super().__init__(leasing, entry, OPENAI)
        self._runs = runs
        self._blueprint = blueprint
        self._asked = asked

    async def send_answer(self, out: Outgoing) -> None:
        """As the interface says: an error before the first words has a status of its own."""
        runtime = self._leasing.relay.runtime(self._entry.instance_key)
        if runtime.state is State.UNAVAILABLE:
            raise away(runtime)  # no waiting installs it, or logs it in
        await self._leasing.relay.serving(self._entry.instance_key)
        answer = ChatAnswer(
            self._blueprint.model_identity,
            f"chatcmpl-{secrets.token_hex(12)}",
            int(time.time()),
            self._asked.include_usage,
        )
        lease = self._leasing.keeper.table.find(self._entry.ref)
        party = None if lease is None else lease.uid
        run = self._runs.generate(self._blueprint, self._asked.generate, party)
        async with aclosing(run) as batches:
            async for batch in batches:
                # The end is sent when it is known: clearing up after the run is not waited for.
                if self._asked.stream:
                    await _send_events(out, answer, batch)
                else:
                    await _send_whole(out, answer, batch)


async def _send_events(out: Outgoing, answer: ChatAnswer, batch: Batch) -> None:
    events = answer.encode(batch)
    if not out.begun:
        await out.begin(200, EVENTS)
    if answer.finished:
        await out.end(events)
    else:
        await out.piece(events)


async def _send_whole(out: Outgoing, answer: ChatAnswer, batch: Batch) -> None:
    answer.add(batch)
    if answer.finished:
        body = answer.object()
        length = b"%d" % len(body)
        await out.begin(200, [(b"content-type", b"application/json"), (b"content-length", length)])
        await out.end(body)
