"""`metrics`: what the daemon has counted, and how things stand now, by the names of `/metrics`."""

import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import trio

from inferd_proto import JsonObject

from ..metrics import Family, Histogram, RouteCounts, Sample
from ..routing.breaker import BreakerState
from ..routing.router import Route
from ..supervision.agent_room import AgentRoom
from ..supervision.processes.memory import resident_bytes
from .call import Call
from .view import DaemonView


async def metrics(call: Call) -> JsonObject:
    """`{"metrics": [{"kind", "name", "help", "samples": [{"labels", "value"}]}]}`.

    A histogram's value is `{"count", "sum", "buckets": {upper bound: how many up to it}}`.
    """
    return {"metrics": [_plain(family) for family in measure(call.view)]}


def measure(view: DaemonView) -> Iterator[Family]:
    """Everything, as it is now. Names no user, no key and no client."""
    yield from _of_routes(view.router.routes)
    yield from _of_backends(view)
    if view.leasing is not None:
        yield from _of_runtimes(view)
    if view.agents is not None:
        yield from _of_agents(view.agents)
    yield from _of_fronts(view)
    yield from _of_process(view)


def _of_routes(routes: Sequence[Route]) -> Iterator[Family]:
    yield Family(
        "counter",
        "inferd_requests",
        "Requests that ended, by what was asked for and the code they ended with.",
        [
            Sample(count, {"route": route.name, "kind": kind, "outcome": outcome})
            for route in routes
            for (kind, outcome), count in route.counts.requests.items()
        ],
    )
    yield Family(
        "counter",
        "inferd_tokens",
        "Tokens that answered requests took, as backends report them.",
        [sample for route in routes for sample in _tokens(route.name, route.counts)],
    )
    for name, text, histograms in (
        (
            "inferd_first_token_seconds",
            "From a request to the first of its answer.",
            [(route.name, route.counts.first_tokens_s) for route in routes],
        ),
        (
            "inferd_request_duration_seconds",
            "From a request to its end.",
            [(route.name, route.counts.durations_s) for route in routes],
        ),
    ):
        samples = [Sample(histogram, {"route": route}) for route, histogram in histograms]
        yield Family("histogram", name, text, samples)
    yield _gauge(
        "inferd_route_ready",
        "1 where the route takes requests.",
        routes,
        lambda r: r.readiness()[0],
    )
    yield _gauge(
        "inferd_route_active", "Requests that run.", routes, lambda r: r.gate.admission.active
    )
    yield _gauge(
        "inferd_route_queued", "Requests that wait.", routes, lambda r: r.gate.admission.waiting
    )
    yield _gauge(
        "inferd_route_permits", "Requests that may run at once.", routes, lambda r: r.permits
    )


def _of_backends(view: DaemonView) -> Iterator[Family]:
    found = {one.name: one for route in view.router.routes for tier in route.tiers for one in tier}
    now = trio.current_time()
    yield Family(
        "gauge",
        "inferd_backend_in_flight",
        "Requests that a backend works on.",
        [Sample(one.in_flight, {"backend": name}) for name, one in found.items()],
    )
    yield Family(
        "counter",
        "inferd_backend_dropped_lines",
        "Malformed lines that were left out of a backend's streams.",
        [
            Sample(dropped, {"backend": name})
            for name, one in found.items()
            if (dropped := one.backend.dropped) is not None
        ],
    )
    yield Family(
        "gauge",
        "inferd_breaker_state",
        "1 for the state that the backend's breaker is in.",
        [
            Sample(one.breaker.state(now) is state, {"backend": name, "state": state.value})
            for name, one in found.items()
            for state in BreakerState
        ],
    )


def _of_runtimes(view: DaemonView) -> Iterator[Family]:
    runtimes = list(view.leases.runtimes)
    states = Counter(runtime.shown_state.value for runtime in runtimes)
    yield Family(
        "gauge",
        "inferd_runtimes",
        "Runtimes by their state.",
        [Sample(count, {"state": state}) for state, count in states.items()],
    )
    restarts: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for runtime in runtimes:
        # what is no route's own is its owner's business
        route = runtime.blueprint.route or ""
        restarts[route] += runtime.supervisor.machine.restarts
        process = runtime.supervisor.process
        memory[route] += 0 if process is None else resident_bytes(process.pid)
    yield Family(
        "counter",
        "inferd_runtime_restarts",
        "Restarts after a crash; route is empty for runtimes of leases alone.",
        [Sample(count, {"route": route}) for route, count in restarts.items()],
    )
    yield Family(
        "gauge",
        "inferd_runtime_resident_bytes",
        "Memory of the runtimes' processes.",
        [Sample(count, {"route": route}) for route, count in memory.items()],
    )
    leases = sum(1 for lease in view.leases.keeper.table if not lease.implicit)
    yield Family("gauge", "inferd_leases", "Live leases.", [Sample(leases)])


def _of_agents(room: AgentRoom) -> Iterator[Family]:
    """Nothing is counted before somebody asks an agent."""
    runs = room.runs_so_far
    running = {} if runs is None else runs.all_running()
    waiting = {} if runs is None else runs.all_waiting()
    ended = {} if runs is None else runs.requests
    yield Family(
        "gauge",
        "inferd_agent_runs",
        "Runs of CLI agents that are under way.",
        [Sample(count, {"provider": provider}) for provider, count in running.items()],
    )
    yield Family(
        "gauge",
        "inferd_agent_queued",
        "Requests to CLI agents that wait for a run.",
        [Sample(count, {"provider": provider}) for provider, count in waiting.items()],
    )
    yield Family(
        "counter",
        "inferd_agent_requests",
        "Requests to CLI agents that ended, by the code they ended with.",
        [
            Sample(count, {"provider": provider, "outcome": outcome})
            for (provider, outcome), count in ended.items()
        ],
    )


def _of_fronts(view: DaemonView) -> Iterator[Family]:
    connections = [Sample(view.connections, {"front": "socket"})]
    if view.http is not None:
        connections.append(Sample(view.http.connections, {"front": "http"}))
    yield Family("gauge", "inferd_connections", "Clients that are connected.", connections)
    if view.http is not None:
        yield Family(
            "counter",
            "inferd_http_responses",
            "Answers over HTTP by their status.",
            [Sample(n, {"status": str(status)}) for status, n in view.http.responses.items()],
        )


def _of_process(view: DaemonView) -> Iterator[Family]:
    yield Family("gauge", "inferd_info", "Always 1.", [Sample(1, {"version": view.version})])
    uptime_s = trio.current_time() - view.started_at
    yield Family(
        "gauge", "inferd_uptime_seconds", "Since the last start or upgrade.", [Sample(uptime_s)]
    )
    yield Family(
        "counter", "inferd_upgrades", "Upgrades in place of this process.", [Sample(view.upgrades)]
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = Sample(used.ru_utime + used.ru_stime)
    yield Family("counter", "process_cpu_seconds", "Of the daemon itself, not of runtimes.", [cpu])
    memory = Sample(resident_bytes(os.getpid()))
    yield Family("gauge", "process_resident_memory_bytes", "Of the daemon itself.", [memory])


def _tokens(route: str, counts: RouteCounts) -> list[Sample]:
    return [
        Sample(counts.input_tokens, {"route": route, "direction": "input"}),
        Sample(counts.output_tokens, {"route": route, "direction": "output"}),
    ]


def _gauge(
    name: str, text: str, routes: Sequence[Route], value: Callable[[Route], float]
) -> Family:
    samples = [Sample(value(route), {"route": route.name}) for route in routes]
    return Family("gauge", name, text, samples)


def _plain(family: Family) -> JsonObject:
    return {
        "kind": family.kind,
        "name": family.name,
        "help": family.help,
        "samples": [
            {"labels": dict(sample.labels), "value": _plain_value(sample.value)}
            for sample in family.samples
        ],
    }


def _plain_value(value: float | Histogram) -> object:
    if not isinstance(value, Histogram):
        return int(value) if isinstance(value, bool) else value
    buckets = {str(bound): count for bound, count in value.cumulated}
    return {"count": value.count, "sum": value.total, "buckets": buckets}
