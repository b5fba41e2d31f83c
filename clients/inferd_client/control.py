"""The verbs for runtimes and leases, asynchronous: each is one operation of leases.md section 2.

Knows no connection: it is the part of the client that stands on `call` and on streams of records.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, Unpack

from inferd_proto import AgentStatus, EnsurePlan, JsonObject, Lease, LeaseEnsured, Runtime

from . import leases, runtimes
from .held_lease import HeldLease
from .leases import EnsureOptions, Target
from .runtimes import Change, LogLine
from .status import RouteStatus
from .streams import RecordStream

T = TypeVar("T")


class ControlVerbs(ABC):
    """Leases and runtimes.

    A runtime is named by its instance key, or the beginning of it; by its name, or its model's;
    or by a route that it stands behind.
    """

    _label: str

    # -- leases ----------------------------------------------------------------------------

    def lease(self, target: Target | None = None, **options: Unpack[EnsureOptions]) -> HeldLease:
        """Have a runtime for `target` ready and hold it for a block, renewed all the while.

        `lease(agent="claude", model=…)` has an agent. Raises ValueError for a target that is none.
        See `HeldLease`.
        """
        asked = leases.ensure(target, options, owner=self._label, bind="connection")
        return self._hold(asked)

    async def ensure(
        self, target: Target | None = None, **options: Unpack[EnsureOptions]
    ) -> LeaseEnsured:
        """Have a runtime for `target` ready and take a lease that nobody renews but you.

        By default (`bind="none"`) it outlives this client: it ends by its ttl or by `release`.
        """
        asked = leases.ensure(target, options, owner=self._label, bind="none")
        return await self._take(asked)

    async def plan(
        self, target: Target | None = None, **options: Unpack[EnsureOptions]
    ) -> EnsurePlan:
        """What `ensure` would take: what it needs, what would have to go. Changes nothing."""
        asked = leases.ensure(target, options, owner=self._label, bind="none")
        return leases.to_plan(await self.call("lease.ensure", **asked | {"plan": True}))

    async def renew(self, lease_ref: str, ttl: float) -> Lease:
        """Give a lease `ttl` seconds from now. Raises NotFound where it has ended."""
        ttl_ms = round(ttl * 1000)
        return leases.to_lease(await self.call("lease.renew", lease_ref=lease_ref, ttl_ms=ttl_ms))

    async def release(self, lease_ref: str) -> None:
        """End a lease; it is no error where it has ended already."""
        await self.call("lease.release", lease_ref=lease_ref)

    async def leases(
        self,
        *,
        owner: str | None = None,
        instance_key: str | None = None,
        uid: int | None = None,
    ) -> list[Lease]:
        """The living leases that this user may see, oldest first; of those the ones that fit
        every filter."""
        filters = leases.filters(owner, instance_key, uid)
        return leases.to_leases(await self.call("lease.list", **filters))

    async def agents(self) -> list[AgentStatus]:
        """The providers of CLI agents: what is found of each, whether it is logged in."""
        return leases.to_agents(await self.call("agent.list"))

    # -- runtimes --------------------------------------------------------------------------

    async def runtimes(self) -> list[Runtime]:
        """What runs, is about to, or ran a while ago."""
        return runtimes.to_runtimes(await self.call("runtime.list"))

    async def runtime(self, name: str) -> Runtime:
        """One of `runtimes`. Raises NotFound for none, Conflict for several of that name."""
        listed = await self.runtimes()
        return runtimes.find_runtime(listed, await self.routes(), name)

    async def stop(self, name: str, *, force: bool = False) -> Runtime:
        """Stop a runtime, and return when it is gone. Raises Conflict while somebody holds it,
        unless forced: that ends their leases."""
        asked = await self._named(name)
        return runtimes.to_runtime(await self.call("runtime.stop", **asked, force=force))

    async def restart(self, name: str, *, force: bool = False) -> Runtime:
        """Stop a runtime and start it again, at the same address. Raises Conflict while somebody
        holds it, unless forced; leases stay either way. It is starting when this returns."""
        asked = await self._named(name)
        return runtimes.to_runtime(await self.call("runtime.restart", **asked, force=force))

    def logs(
        self, name: str, *, follow: bool = False, lines: int | None = None
    ) -> RecordStream[LogLine]:
        """The last `lines` that a runtime wrote; with `follow`, those to come as well."""

        async def arguments() -> JsonObject:
            asked = await self._named(name) | {"follow": follow}
            return asked if lines is None else asked | {"lines": lines}

        return self._records("logs", arguments, runtimes.to_log_line, endless=follow)

    def watch(self) -> RecordStream[Change]:
        """A snapshot, then every change of runtimes and leases. Raises DaemonBusy where this
        program is too slow for them: watch again."""

        async def nothing() -> JsonObject:
            return {}

        return self._records("watch", nothing, runtimes.to_change, endless=True)

    async def _named(self, name: str) -> JsonObject:
        return {"instance_key": (await self.runtime(name)).instance_key}

    # -- what a client has -----------------------------------------------------------------

    @abstractmethod
    async def call(self, op: str, /, **arguments: Any) -> object:  # noqa: ANN401
        """One control operation; returns the plain JSON value of its result."""

    @abstractmethod
    async def routes(self) -> list[RouteStatus]:
        """The names that can be asked for."""

    @abstractmethod
    async def _take(self, asked: JsonObject) -> LeaseEnsured: ...

    @abstractmethod
    def _hold(self, asked: JsonObject) -> HeldLease: ...

    @abstractmethod
    def _records(
        self,
        op: str,
        arguments: Callable[[], Awaitable[JsonObject]],
        read: Callable[[object], T],
        *,
        endless: bool,
    ) -> RecordStream[T]: ...
