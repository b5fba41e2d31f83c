"""Runtimes, leases, plans and changes in words."""

import msgspec
import pytest

from inferd_client import EnsurePlan, Lease, Runtime
from inferd_client.ctl.tables import change_lines, plan_lines, runtimes_table, short_key, until
from inferd_client.runtimes import to_change
from tests.clients.lease_records import CHANGES, LEASE, PLAN, RUNTIMES


def runtime(**fields: object) -> Runtime:
    base = {"leases": 0, "idle_left_ms": None}
    return msgspec.convert(RUNTIMES[0] | base | fields, Runtime)


def lease(left_ms: int | None) -> Lease:
    return msgspec.convert(LEASE | {"left_ms": left_ms}, Lease)


@pytest.mark.parametrize(
    ("shown", "held", "words"),
    [
        (runtime(), [], "forever"),
        (runtime(idle_left_ms=125_000), [], "in 2 min 5 s"),
        (runtime(idle_left_ms=3_599_001), [], "in 1 h 0 min"),
        (runtime(leases=2), [lease(1000), lease(60_000)], "leased, 1 min 0 s"),
        (runtime(leases=2), [lease(1000)], "leased"),
        (runtime(leases=1), [lease(None)], "leased"),
        (runtime(state="starting"), [], "busy"),
        (runtime(state="stopped"), [], ""),
        (runtime(state="failed"), [], ""),
    ],
)
def test_until(shown: Runtime, held: list[Lease], words: str) -> None:
    assert until(shown, held) == words


@pytest.mark.parametrize(
    ("state", "seen", "shown"),
    [
        ("ready", 2**30, "1.0 GiB"),
        ("starting", None, "~2.0 GiB"),
        ("stopped", None, ""),
        ("failed", None, ""),
    ],
)
def test_memory_is_shown_of_what_has_some(state: str, seen: int | None, shown: str) -> None:
    told = runtime(state=state, memory_bytes=seen, estimated_bytes=2**31)
    table = runtimes_table([told], [])
    assert list(table.columns[4].cells) == [shown]


def test_a_key_is_short_and_still_a_beginning() -> None:
    key = "qwen3-8b-00112233445566778899aabbccddeeff"
    assert short_key(key) == "qwen3-8b-00112233"
    assert key.startswith(short_key(key))


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"verdict": "running"}, ["It runs already."]),
        (
            {"verdict": "fits", "free_bytes": None},
            ["It needs about 8.0 GiB; no limit is set.", "It fits."],
        ),
        (
            {"verdict": "evicts"},
            [
                "It needs about 8.0 GiB; 1.0 GiB are free.",
                "It fits once these, which nobody holds, are stopped:",
                "  tiny  50 MiB",
            ],
        ),
        (
            {"missing_runtimes": 1},
            [
                "It needs about 8.0 GiB; 1.0 GiB are free.",
                "It does not fit: 2.0 GiB and a place for one more runtime is missing, until these"
                " are released:",
                "  qwen  6.0 GiB  held by lease-abc of me",
            ],
        ),
        (
            {"blocked_by": []},
            [
                "It needs about 8.0 GiB; 1.0 GiB are free.",
                "It does not fit: 2.0 GiB is missing, whatever is stopped.",
            ],
        ),
    ],
)
def test_plans(fields: dict[str, object], lines: list[str]) -> None:
    assert plan_lines(msgspec.convert(PLAN | fields, EnsurePlan)) == lines


def test_a_holder_that_one_may_not_see() -> None:
    holder = {"lease_ref": "", "owner_ref": "", "uid": 7}
    qwen = {"instance_key": "k", "name": "qwen", "memory_bytes": 6 * 2**30, "held_by": [holder]}
    plan = msgspec.convert(PLAN | {"blocked_by": [qwen]}, EnsurePlan)
    assert plan_lines(plan)[-1] == "  qwen  6.0 GiB  held by a lease of uid 7"


def test_changes() -> None:
    snapshot, restarting, expired, *others = (change_lines(to_change(one)) for one in CHANGES)
    assert snapshot == [
        "runtime qwen is ready, pid 4300",
        "runtime tiny is ready, pid 4301",
        "runtime bad is failed, the model is corrupt",
        "runtime cold is stopped",
        "lease lease-abc held, qwen3-8b-00112233, owner me, 1 min 0 s left",
    ]
    assert restarting == ["runtime qwen is restarting, pid 4300"]
    assert expired == ["lease lease-abc expired, qwen3-8b-00112233, owner me, 1 min 0 s left"]
    assert others == [
        ["route qwen3 is not ready: qwen is loading"],
        ["route qwen3 is ready"],
        ["the daemon is draining"],
        ["weather"],
    ]


def test_what_a_runtime_says_has_no_power_over_the_terminal() -> None:
    evil = RUNTIMES[2] | {"last_error": "\x1b[2Jgone\nnext line"}
    (line,) = change_lines(to_change({"type": "runtime", "runtime": evil}))
    assert "\x1b" not in line
    assert "\n" not in line
