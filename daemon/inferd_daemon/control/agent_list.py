"""`agent.list`: the providers of CLI agents, what was found of each, and what it may be asked."""

import msgspec
import trio

from inferd_proto import AgentStatus, JsonObject

from ..errors import RequestError
from ..supervision.agent_room import AgentRoom
from .call import Call

FRESH_S = 10.0
"""To ask starts the programs: whoever asks again at once gets the same answer."""


async def agent_list(call: Call) -> JsonObject:
    """`{"agents": [...]}`, each asked now. Raises RequestError."""
    # Loaded where somebody asks for agents.
    from ..engines.agents.registry import PROFILES

    room = call.view.agent_room
    found: dict[str, AgentStatus] = {}
    failed: list[RequestError] = []

    async def look(provider: str) -> None:
        try:
            found[provider] = await _look(room, provider)
        except RequestError as error:  # the caller's answer, and no group of errors
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for provider in PROFILES:
            nursery.start_soon(look, provider)
    if failed:
        raise failed[0]
    return {"agents": [msgspec.to_builtins(found[provider]) for provider in PROFILES]}


async def _look(room: AgentRoom, provider: str) -> AgentStatus:
    from ..engines.agents.registry import PROFILES

    profile, config = PROFILES[provider], room.probes.config(provider)
    seen = await room.probes.ask(provider, max_age_s=FRESH_S)
    return AgentStatus(
        provider=provider,
        found=seen.binary is not None,
        version=seen.version,
        logged_in=seen.logged_in,
        reason=seen.reason,
        models=config.models,
        upstream_protocol=profile.upstream_protocol,
        max_runs=config.max_runs,
        running=room.runs.running(provider),
        publication=profile.publication,
        capabilities=profile.capability_map,
    )
