"""Which saved caches may be restored, and which go: by table and by property."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from inferd_daemon.supervision.kv.manifest import (
    Holding,
    KvFile,
    KvManifest,
    allowed_bytes,
    decode,
    encode,
    file_name,
    merged,
    restorable,
    to_drop,
)


def kept(slot: int, size: int = 10) -> KvFile:
    return KvFile(slot, file_name(slot), size, "00" * 32, 5)


MANIFEST = KvManifest(
    instance_key="m-1", identity="i", process="b/1/2", saved_at=7.0, files=[kept(0), kept(2)]
)


def test_a_manifest_comes_back_as_it_was() -> None:
    assert decode(encode(MANIFEST)) == MANIFEST
    assert MANIFEST.total_bytes == 20


@given(st.binary(max_size=200) | st.integers(0, 400).map(lambda at: encode(MANIFEST)[:at]))
def test_what_is_torn_or_foreign_is_none(data: bytes) -> None:
    assert decode(data) in (None, MANIFEST)


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"files": [replace(kept(0), name="../../etc/passwd")]},
        {"files": [replace(kept(0), name=file_name(1))]},
        {"files": [kept(0), kept(0)]},
    ],
)
def test_a_manifest_that_names_what_it_may_not_is_none(changed: dict[str, object]) -> None:
    raw = msgspec.to_builtins(MANIFEST) | msgspec.to_builtins(changed)
    assert decode(msgspec.json.encode(raw)) is None


def test_only_what_this_program_made_of_this_model_is_restored() -> None:
    assert restorable(MANIFEST, "m-1", "i") == MANIFEST.files
    assert restorable(MANIFEST, "m-2", "i") == []
    assert restorable(MANIFEST, "m-1", "j") == []
    assert restorable(None, "m-1", "i") == []
    # The process that was given them last did not live to tell.
    assert restorable(replace(MANIFEST, restoring=True), "m-1", "i") == []


def test_a_fresh_file_takes_the_place_of_its_slots_former_one() -> None:
    assert merged([kept(0), kept(1)], [kept(1, 99), kept(3)]) == [kept(0), kept(1, 99), kept(3)]


@pytest.mark.parametrize(
    ("allowed", "dropped"),
    [
        (60, []),
        (59, ["old"]),
        (50, ["old"]),
        (30, ["old", "young"]),
        (29, ["old", "young", "own"]),
        (0, ["old", "young", "own"]),
    ],
)
def test_what_was_saved_longest_ago_goes_first_and_ones_own_last(
    allowed: int, dropped: list[str]
) -> None:
    holdings = [
        Holding("young", 20, 9.0),
        Holding("own", 30, 1.0),
        Holding("old", 10, 2.0),
        Holding("empty", 0, 0.0),
    ]
    assert to_drop(holdings, allowed, "own") == dropped


@given(
    st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100)), max_size=8),
    st.integers(0, 500),
)
def test_what_stays_fits_and_nothing_goes_in_vain(
    sizes: list[tuple[int, float]], allowed: int
) -> None:
    holdings = [Holding(str(i), size, at) for i, (size, at) in enumerate(sizes)]
    dropped = to_drop(holdings, allowed, "0")
    stays = sum(one.total_bytes for one in holdings if one.place not in dropped)
    assert stays <= allowed
    if dropped:
        last = next(one for one in holdings if one.place == dropped[-1])
        assert stays + last.total_bytes > allowed


@pytest.mark.parametrize(
    ("limit", "held", "free", "allowed"),
    [(100, 0, 1000, 100), (100, 0, 50, 25), (100, 40, 0, 20), (0, 10, 1000, 0)],
)
def test_half_of_what_is_free_is_never_exceeded(
    limit: int, held: int, free: int, allowed: int
) -> None:
    assert allowed_bytes(limit, held, free) == allowed
