"""Whether the runtime that another one needs will do: looked at once it is ready, before a lease.

Asks for nothing that would have it work.
"""

import trio

from inferd_proto import CompatibilityResult

from ...errors import BackendFault
from ..runtimes.blueprint import Blueprint
from ..runtimes.managed import Managed
from .compatibility import incompatible
from .relay import Relay

ASK_S = 5.0
"""Who says nothing so long is not refused: its requests will tell."""
_NOT_SERVED = frozenset({404, 405, 501})


async def require_fit(
    relay: Relay, blueprint: Blueprint, needed: Managed, fits: CompatibilityResult
) -> None:
    """Raises RequestError (`incompatible`) where `needed` cannot do what `blueprint` asks of it."""
    facts = needed.supervisor.facts
    told = {} if facts is None else facts.capabilities or {}
    name, path = needed.blueprint.name, blueprint.asks_at
    if told.get("streaming") is False:
        raise incompatible(f"{blueprint.name}: {name} generates nothing", fits)
    if path is not None and await _answer(relay, needed.key, path) in _NOT_SERVED:
        raise incompatible(
            f"{blueprint.name}: {name} does not serve {path}, by which it would be asked", fits
        )


async def _answer(relay: Relay, instance_key: str, path: str) -> int | None:
    """The status of an empty request, which is a mistake where the path is served."""
    with trio.move_on_after(ASK_S):
        try:
            async with relay.exchange(instance_key, "POST", path, b"{}") as relayed:
                return relayed.status
        except BackendFault:
            return None
    return None
