"""Tells of changes that nobody else tells of: a route that becomes ready or stops being so, and
the daemon's own state.
"""

import trio

from inferd_proto import JsonObject

from .view import DaemonView

LOOK_S = 1.0
"""Readiness of upstreams that others run changes without a sign."""


async def watch_state(view: DaemonView) -> None:
    """Compare after each change of a runtime, and now and then, until cancelled."""
    leases = view.leases
    known: dict[str, JsonObject] = {}
    while True:
        for key, change in _states(view).items():
            if known.get(key, change) != change:
                leases.changes.tell(change)
            known[key] = change
        with trio.move_on_after(LOOK_S):
            await leases.runtimes.wait_changed()
        # Many things change at once; one comparison serves them all.
        await trio.sleep(0.005)


def _states(view: DaemonView) -> dict[str, JsonObject]:
    states: dict[str, JsonObject] = {"": {"type": "daemon", "state": view.state}}
    for route in view.router.routes:
        ready, reason = route.readiness()
        states[route.name] = {
            "type": "route",
            "route": {"name": route.name, "ready": ready, "reason": reason},
        }
    return states
