"""The table of routes: ranks, load, breakers, and who waits."""

from inferd_client.ctl.render import reason_lines, routes_table
from inferd_client.status import to_routes

READY = {"kind": "mock", "ready": True, "slots": 4}
CHAT = {
    "name": "chat",
    "ready": True,
    "active": 4,
    "permits": 4,
    "queued": 3,
    "queue_depth": 64,
    "peers": [
        {"uid": 1000, "client": "batch", "active": 4, "queued": 2},
        {"uid": 1001, "client": "", "active": 0, "queued": 1},
        {"uid": 1000, "client": "idle", "active": 1, "queued": 0},
    ],
    "backends": [
        {
            "name": "a",
            "kind": "openai_compat",
            "priority": 1,
            "reason": "its breaker is open for another 9.0 s; its last failure: 502",
            "breaker": {"state": "open", "failures": 3, "retry_in_ms": 9000},
        },
        {"name": "b", "priority": 2, "in_flight": 4, **READY},
        {"name": "c", "priority": 2, "breaker": {"state": "half_open", "failures": 3}, **READY},
        {"name": "d", "priority": 2, "breaker": {"state": "closed", "failures": 2}, **READY},
    ],
}


def test_a_busy_route() -> None:
    table = routes_table(to_routes({"routes": [CHAT]}))
    cells = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert cells["ACTIVE"] == "4/4"
    assert str(cells["QUEUED"]).splitlines() == ["3/64", "uid 1000 batch: 2", "uid 1001: 1"]
    assert str(cells["BACKENDS"]).splitlines() == [
        "1. a (openai_compat): its breaker is open",
        "2. b (mock): 4 of 4 slots in use",
        "2. c (mock): its breaker is half open",
        "2. d (mock): 2 failures lately",
    ]


def test_reasons_stand_below_the_table() -> None:
    down = {"name": "a", "kind": "llama_server", "reason": "it ended by itself\nwith 1: no memory"}
    routes = to_routes(
        {
            "routes": [
                CHAT,
                {"name": "x", "reason": f"a: {down['reason']}", "backends": [down]},
                {"name": "y", "backends": [{**down, "name": "b"}]},
                {"name": "\x1b[2Jz", "reason": "it has no backends"},
            ]
        }
    )
    states = {str(column.header): list(column.cells) for column in routes_table(routes).columns}
    assert states["STATE"] == ["ready", "unready", "unready", "unready"]
    assert states["BACKENDS"][1:] == ["a (llama_server): unready", "b (llama_server): unready", ""]
    assert reason_lines(routes) == [
        "a: its breaker is open for another 9.0 s; its last failure: 502",
        "a, b: it ended by itself with 1: no memory",
        "\N{REPLACEMENT CHARACTER}[2Jz: it has no backends",
    ]


def test_what_is_doubtful_though_ready_is_told() -> None:
    backends = [{"name": "b", **READY, "reason": "its api_key may be wrong"}]
    routes = to_routes({"routes": [{**CHAT, "backends": backends}]})
    assert reason_lines(routes) == ["b: its api_key may be wrong"]


def test_equals_have_no_rank() -> None:
    backends = [{"name": name, "priority": 1, **READY} for name in "bc"]
    table = routes_table(to_routes({"routes": [{**CHAT, "backends": backends}]}))
    cells = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert str(cells["BACKENDS"]).splitlines() == ["b (mock)", "c (mock)"]


def test_labels_have_no_power_over_the_terminal() -> None:
    peers = [{"uid": 1, "client": "\x1b[2J[red]", "queued": 1}]
    table = routes_table(to_routes({"routes": [{**CHAT, "peers": peers}]}))
    cells = {str(column.header): str(next(iter(column.cells))) for column in table.columns}
    assert "\x1b" not in cells["QUEUED"]
    assert "[red]" in cells["QUEUED"]
