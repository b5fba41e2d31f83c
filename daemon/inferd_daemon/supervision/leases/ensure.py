"""Has a runtime ready and held: for an owner as a lease, for a request of a route while it runs.

Any number of callers share one start. Nothing is started for what does not fit, and nobody waits
without an end: a start has the deadline of its boot spec.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

import trio
from msgspec.structs import replace

from inferd_proto import (
    CompatibilityResult,
    EnsurePlan,
    LeaseEnsure,
    LeaseEnsured,
)

from ...backends.thread import in_thread
from ...engines.failures import Cause, failure
from ...errors import BackendFault, RequestError
from ..runtimes.blueprint import Blueprint
from ..runtimes.machine import SERVING, State
from ..runtimes.managed import Managed
from ..runtimes.registry import Runtimes
from ..runtimes.start_failure import start_failure
from .compatibility import explain, incompatible, match
from .endpoint import describe_endpoint
from .file_access import require_readable
from .front_door import Door, FrontDoor
from .journal import RuntimeEntry
from .keeper import LeaseKeeper, Need
from .lease import Claimant, Lease
from .needed import require_fit
from .placing import Placing
from .relay import Relay
from .socket_access import Owner, SocketAccess, group_of
from .tokens import digest, new_token

START_SLACK_S = 5.0
"""Above a runtime's own deadline: its stop, and a restart that was under way."""

_NO_FRONT = (
    "the runtime listens on a Unix socket only, and this daemon has no HTTP front: ask for "
    "transport uds, give its boot spec a `port`, or give the daemon's configuration an [http] table"
)
_NO_FRONT_RELAYED = (
    "leases on an upstream go over the HTTP front, and this daemon has none: give its "
    "configuration an [http] table"
)


class Ensure:
    """The flow of `lease.ensure`, and of the implicit leases of requests.

    `front` is the daemon's HTTP front; None where it has none.
    """

    front: FrontDoor | None = None

    def __init__(
        self,
        runtimes: Runtimes,
        keeper: LeaseKeeper,
        placing: Placing,
        access: SocketAccess,
        relay: Relay,
    ) -> None:
        self._runtimes = runtimes
        self._keeper = keeper
        self._placing = placing
        self._access = access
        self._relay = relay

    async def ensure(
        self, blueprint: Blueprint, asked: LeaseEnsure, owner: Owner
    ) -> LeaseEnsured | EnsurePlan:
        """A lease on the runtime of `blueprint`, ready; with `plan` only what it would take.

        Raises RequestError: `incompatible`, the refusal (`conflict`, with the plan), the reason
        why it does not start, `queue_full` and EntryTooLong for a spec too large to be remembered,
        JournalUnavailable.
        """
        fits = match(asked.consumer, blueprint.manifest)
        if not fits.compatible:
            fits = match(asked.consumer, await blueprint.offer())
        if not fits.compatible:
            raise incompatible(explain(fits), fits)
        asked = self._reachable(blueprint, asked, fits)
        if blueprint.route is None and not owner.claimant.admin:
            await self._require_readable(blueprint.files, owner)
        if asked.plan:
            # An agent takes nothing itself; the model that it runs on does.
            return await self._placing.tell(blueprint.needs or blueprint, owner.claimant)
        for one in filter(None, (blueprint, blueprint.needs)):
            if not self._keeper.records.known(f"runtime/{one.instance_key}"):
                self._keeper.records.require_room([_spec_entry(one)], owner.claimant)
        uid, key = owner.claimant.uid, blueprint.instance_key
        wait_until = trio.current_time() + asked.wait_ms / 1000
        with ExitStack() as pins:
            ready: list[Managed] = []
            need = None
            if blueprint.needs is not None:
                pins.enter_context(self._keeper.pinned(blueprint.needs.instance_key, uid))
                needed = await self._have_ready(blueprint.needs, owner.claimant, wait_until)
                await require_fit(self._relay, blueprint, needed, fits)
                ready.append(needed)
                need = Need(needed.key, runtime_entry(needed))
            pins.enter_context(self._keeper.pinned(key, uid))
            runtime = await self._have_ready(blueprint, owner.claimant, wait_until)
            door = await self._door(blueprint, asked)
            for held in (*ready, runtime):
                if held.refusal is not None:  # called off since it was ready
                    raise held.refusal
            known = self._keeper.records.known(f"runtime/{key}")
            if asked.transport == "uds" and self._access.open_to(runtime, owner, fits) and known:
                self._keeper.records.note(runtime_entry(runtime))
            lease = await self._keeper.grant(
                key,
                asked,
                owner.claimant,
                None if known else runtime_entry(runtime),
                token_sha256=None if door is None else digest(door.token),
                model_identity=blueprint.model_identity or None,
                need=need,
            )
        return self.describe(lease, runtime, fits, door)

    async def _door(self, blueprint: Blueprint, asked: LeaseEnsure) -> Door | None:
        """Where the owner comes in over the front; None where it goes straight to the runtime."""
        if not _over_front(blueprint, asked):
            return None
        assert self.front is not None
        return Door(await self.front.address(), new_token())

    def _reachable(
        self, blueprint: Blueprint, asked: LeaseEnsure, fits: CompatibilityResult
    ) -> LeaseEnsure:
        """With the transport that there is. Raises RequestError (`incompatible`)."""
        if not _over_front(blueprint, asked):
            # A spec that names a port asks for TCP itself; the lease says so.
            return replace(asked, transport=blueprint.transport)
        front = self.front
        if front is None or not (front.stands or blueprint.opens_front):
            raise incompatible(_NO_FRONT_RELAYED if blueprint.relayed else _NO_FRONT, fits)
        return replace(asked, transport="tcp")

    async def _require_readable(self, files: Sequence[str], owner: Owner) -> None:
        try:
            await in_thread(require_readable, None, files, owner.claimant.uid, owner.groups)
        except OSError as error:
            raise BackendFault(f"cannot look at the model's file: {error.strerror}") from error

    def describe(
        self, lease: Lease, runtime: Managed, fits: CompatibilityResult, door: Door | None = None
    ) -> LeaseEnsured:
        """The lease as its owner gets it."""
        supervisor = runtime.supervisor
        endpoint = describe_endpoint(
            lease, runtime.blueprint, supervisor.endpoint, supervisor.facts, fits, door
        )
        return LeaseEnsured(lease.to_wire(self._keeper.now()), endpoint, fits)

    def holding(self, blueprint: Blueprint) -> AbstractContextManager[None]:
        """Hold the runtime for the block, as the daemon's own: to be had ready then."""
        return self._keeper.pinned(blueprint.instance_key, os.geteuid())

    async def have_ready(self, blueprint: Blueprint, wait_s: float) -> Managed:
        """The runtime, ready, for a caller that is `holding` it; waits so long for room.

        Raises RequestError as `ensure` does.
        """
        wait_until = trio.current_time() + wait_s
        return await self._have_ready(blueprint, Claimant(os.geteuid(), admin=True), wait_until)

    async def _have_ready(self, blueprint: Blueprint, asks: Claimant, wait_until: float) -> Managed:
        while True:
            runtime = await self._placing.place(blueprint, asks, wait_until=wait_until)
            if runtime.state in SERVING or await self._became_ready(runtime):
                runtime.last_used = self._keeper.now()
                return runtime

    async def _became_ready(self, runtime: Managed) -> bool:
        """False where it was stopped meanwhile, by no fault of its own. Raises RequestError."""
        supervisor = runtime.supervisor
        timing = supervisor.engine.timing
        allowed = timing.ready_timeout_s + timing.stop_timeout_s + START_SLACK_S
        with trio.move_on_after(allowed):
            while runtime.state not in SERVING:
                if runtime.refusal is not None:
                    raise runtime.refusal
                if runtime.state is State.FAILED or self._fell_at_once(runtime):
                    raise self._fell(runtime)
                if not runtime.wanted:
                    return False
                await self._runtimes.wait_changed()
            return True
        said = supervisor.status().last_error
        reason = f"it was not ready after {allowed:g} s" + (f": {said}" if said else "")
        attached = runtime.blueprint.kind == "attach"
        cause = Cause.SERVICE_UNAVAILABLE if attached else Cause.NOT_READY
        raise start_failure(runtime.blueprint.name, failure(cause, reason))

    def _fell_at_once(self, runtime: Managed) -> bool:
        """Its first process since it was admitted ended before it was ready."""
        restarts = runtime.supervisor.machine.restarts
        return not runtime.was_ready and restarts > runtime.restarts_before

    def _fell(self, runtime: Managed) -> RequestError:
        supervisor = runtime.supervisor
        why = supervisor.machine.last_failure or failure(Cause.EXITED, "no reason is known")
        return start_failure(
            runtime.blueprint.name,
            why,
            exit_code=supervisor.last_returncode,
            lines=supervisor.log.run_lines(),
        )


def runtime_entry(runtime: Managed) -> RuntimeEntry:
    """What the journal keeps of a runtime that is leased."""
    endpoint, blueprint = runtime.supervisor.endpoint, runtime.blueprint
    return RuntimeEntry(
        instance_key=blueprint.instance_key,
        kind=blueprint.kind,
        spec=blueprint.to_json(),
        uds=None if endpoint.uds is None else str(endpoint.uds),
        port=endpoint.port,
        api_key=endpoint.key,
        group=group_of(runtime),
        route=blueprint.route,
        estimated_bytes=runtime.estimated_bytes,
    )


def _spec_entry(blueprint: Blueprint) -> RuntimeEntry:
    """The most of what the journal is to keep of a runtime that may not be there yet."""
    return RuntimeEntry(
        instance_key=blueprint.instance_key,
        kind=blueprint.kind,
        spec=blueprint.to_json(),
        route=blueprint.route,
    )


def _over_front(blueprint: Blueprint, asked: LeaseEnsure) -> bool:
    """Whether requests come through the daemon: a runtime with an address of its own has that."""
    return blueprint.relayed or (asked.transport == "tcp" and blueprint.transport == "uds")
