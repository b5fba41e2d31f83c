"""`lease.ensure`: have a runtime ready, and hold it."""

import msgspec

from inferd_proto import ErrorCode, LeaseEnsure

from ..errors import CallerFault, RequestError
from ..supervision.runtimes.blueprint import Blueprint
from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of, owner_of


async def lease_ensure(call: Call) -> object:
    """`{lease, endpoint, compatibility}`; with `plan` what it would take."""
    asked = read_arguments(call.arguments, LeaseEnsure)
    if call.view.draining and not asked.plan:
        raise RequestError(
            ErrorCode.BACKEND_UNAVAILABLE, "the daemon is stopping and grants no leases"
        )
    blueprint = _target(call, asked)
    if blueprint.kind == "agent":
        _refuse_tools(call, blueprint.name)
    ensured = await call.view.leases.ensure.ensure(blueprint, asked, owner_of(call))
    return msgspec.to_builtins(ensured)


def _refuse_tools(call: Call, name: str) -> None:
    """They may stand beside the target as well as in it. Raises CallerFault."""
    # Loaded where somebody asks for agents.
    from ..engines.agents.spec import tool_mistakes

    for field, why in tool_mistakes(call.arguments):
        raise CallerFault(f"`{field}` {why} ({name})")


def _target(call: Call, asked: LeaseEnsure) -> Blueprint:
    if not isinstance(asked.target, str):
        admin = claimant_of(call).admin
        return call.view.leases.blueprints.of_spec(asked.target, admin=admin)
    configured = call.view.leases.blueprints.configured
    route = call.view.router.by_name.get(asked.target)
    if route is None:
        known = ", ".join(route.name for route in call.view.router.routes) or "none"
        raise RequestError(
            ErrorCode.NOT_FOUND, f"no route {asked.target[:80]!r}; the routes are: {known}"
        )
    found = [configured[one.name] for one in route.backends if one.name in configured]
    if found:
        # A runtime of the daemon's own can be held; a service may go at any time.
        return next((one for one in found if one.kind != "attach"), found[0])
    kinds = ", ".join(sorted({backend.kind for backend in route.backends}))
    raise RequestError(
        ErrorCode.INCOMPATIBLE,
        f"route {route.name} is answered by {kinds}, which has no endpoint to give",
    )
