"""A CLI agent as a runtime: there is no process while nobody asks, so its program is looked at."""

from ...backends.runtime import Endpoint, ModelFacts
from ...engines.attached.service import Attachable, Sight
from ...engines.base import Health, Timing
from ...engines.failures import Cause
from .probes import AgentProbes

HEALTH_INTERVAL_S = 300.0
"""A look starts the program: half a second of a core, while somebody holds it."""
FRESH_S = 60.0
"""What was seen ready so lately need not be looked at again for the next lease."""


class AgentService(Attachable):
    """`local`: it runs on a model of this daemon and needs no login."""

    def __init__(
        self, name: str, provider: str, model: str, probes: AgentProbes, *, local: bool
    ) -> None:
        self.name = name
        self.timing = Timing(
            ready_timeout_s=60.0, readiness_interval_s=1.0, health_interval_s=HEALTH_INTERVAL_S
        )
        self.endpoint = Endpoint(host="")
        self._provider = provider
        self._model = model
        self._probes = probes
        self._local = local

    async def open(self) -> None:
        """Nothing to be opened."""

    async def observe(self) -> Sight:
        """Whether it is there, and logged in where that is needed."""
        found = await self._probes.ask(self._provider, max_age_s=FRESH_S)
        usable = found.binary is not None if self._local else found.ready
        if usable:
            return Sight(Health.HEALTHY)
        return Sight(Health.NO_ANSWER, found.reason, settled=True, cause=Cause.AGENT_UNUSABLE)

    async def learn(self) -> ModelFacts:
        """The model that it is told to ask for."""
        return ModelFacts(model=self._model, capabilities={})
