"""Everything of CLI agents in one place, loaded when somebody first wants it.

A daemon that runs no agents must not pay for them in memory or in time.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from inferd_proto import JsonObject

from ..config import AgentBackendConfig, AgentConfig, Provider
from ..errors import BackendFault
from .leasing import Leasing
from .runtimes.blueprint import Blueprint
from .succession.reaper import INSTANCE_VARIABLE

if TYPE_CHECKING:
    from .agent_runs import AgentRoute, AgentRuns
    from .agents.blueprint import AgentBlueprint
    from .agents.probes import AgentProbes


class AgentRoom:
    """`configured` by provider; `environment` is the daemon's own; `directory` is for the private
    directories of runs, `scratch` for what of them may be lost with the machine's memory.
    `upstream_of` finds what answers a route, or raises ValueError. Runs need it to `run`.
    """

    def __init__(
        self,
        configured: Mapping[str, AgentConfig],
        environment: Mapping[str, str],
        directory: Path,
        upstream_of: Callable[[str], Blueprint],
        scratch: Path | None = None,
    ) -> None:
        self._configured = configured
        self._environment = environment
        self._directory = directory
        self._scratch = scratch
        self._upstream_of = upstream_of
        self._leasing: Leasing | None = None
        self._nursery: trio.Nursery | None = None

    def open(self, leasing: Leasing) -> None:
        """Call it once, before runs are wanted."""
        self._leasing = leasing

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own every run until cancelled, which ends them all."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def clear_away(self) -> None:
        """Remove what runs of a daemon that was killed left on the disk. Blocks for a moment."""
        for directory in (self._directory, self._scratch):
            if directory is not None and directory.exists():
                from .agents.place import clear_places

                clear_places(directory)

    @cached_property
    def probes(self) -> "AgentProbes":
        """What is known of each CLI."""
        from .agents.probes import AgentProbes

        return AgentProbes(self._configured, self._environment)

    @cached_property
    def runs(self) -> "AgentRuns":
        """All runs."""
        from .agent_runs import AgentRuns
        from .agents.host import AgentHost

        assert self._leasing is not None
        marks = {INSTANCE_VARIABLE: self._leasing.mark}
        host = AgentHost(self._directory, marks, self._scratch)
        return AgentRuns(self._leasing, self.probes, host, self.start)

    def start(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """As a task of the room. Raises BackendFault where it does not `run`."""
        if self._nursery is None:
            raise BackendFault("the daemon is stopping and takes no new requests")
        self._nursery.start_soon(work, *arguments)

    @property
    def runs_so_far(self) -> "AgentRuns | None":
        """None while nobody has wanted any: to ask for that loads nothing."""
        known: AgentRuns | None = self.__dict__.get("runs")
        return known

    def read(self, spec: JsonObject, _admin: bool) -> Blueprint:
        """What an agent spec means. Raises CallerFault, with every mistake by its field."""
        from .agents.blueprint import read_blueprint

        return read_blueprint(spec, self.probes, self._upstream_of)

    def configure(
        self, name: str, table: AgentBackendConfig, idle_ttl_s: float | None
    ) -> "AgentBlueprint":
        """What the backend `name` runs. Raises CallerFault."""
        from .agents.blueprint import read_blueprint

        return read_blueprint(
            _spec(table), self.probes, self._upstream_of, idle_ttl_s=idle_ttl_s, route=name
        )

    def route(self, blueprint: Blueprint) -> "AgentRoute":
        """What answers for a configured agent, by what `configure` has made."""
        from .agent_runs import AgentRoute
        from .agents.blueprint import AgentBlueprint

        assert self._leasing is not None
        assert isinstance(blueprint, AgentBlueprint)
        return AgentRoute(blueprint, self._leasing, self.runs)


def unfit_agent(
    table: AgentBackendConfig,
    configured: Mapping[Provider, AgentConfig],
    environment: Mapping[str, str],
) -> Iterator[tuple[str, str, bool]]:
    """What of a backend's table cannot work: each key, why, and whether nothing starts with it."""
    from ..engines.agents.binary import find_binary
    from ..engines.agents.spec import AgentSpecError, normalise_agent

    own = configured.get(table.agent) or AgentConfig()
    try:
        spec = normalise_agent(_spec(table), {table.agent: own})
    except AgentSpecError as error:
        for field, why in error.mistakes:
            yield field, why, True
        return
    try:
        find_binary(spec.profile, environment, own.binary)
    except BackendFault as error:
        yield "agent", error.message, False


def _spec(table: AgentBackendConfig) -> JsonObject:
    return {"agent": table.agent, "model": table.model, "upstream": table.upstream}
