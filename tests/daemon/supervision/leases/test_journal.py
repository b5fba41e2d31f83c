"""The journal's format: whatever happens to its end, all that stands before it is read back."""

from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.supervision.leases.journal import (
    MAX_ENTRY_BYTES,
    Clocks,
    DaemonEntry,
    Entry,
    EntryTooLong,
    Gone,
    LeaseEntry,
    Live,
    ProcessEntry,
    RuntimeEntry,
    compact,
    encode,
    lease_entry,
    lease_of,
    replay,
)
from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.table import LeaseTable
from inferd_proto import ErrorCode, LeaseEnsure

THIS_BOOT = Clocks(monotonic=100.0, wall=1_000_000.0, boot_id="boot-1")


def _lease(ref: str = "l", ttl_ms: int | None = 60_000) -> Lease:
    asked = LeaseEnsure(target="r", owner_ref='o"\n', ttl_ms=ttl_ms)
    return LeaseTable().grant(100.0, ref, "k", asked, Claimant(1000, 5, 7))


ONE_OF_EACH: list[Live] = [
    DaemonEntry("mark", 1, 2, "boot-1"),
    RuntimeEntry(
        instance_key="k", kind="boot", spec={"model": "/m\n.gguf"}, uds="/r/k.sock", api_key="sk-1"
    ),
    ProcessEntry(instance_key="k", mark="mark", boot_id="boot-1"),
    lease_entry(_lease(), THIS_BOOT),
]


def test_every_entry_comes_back() -> None:
    data = b"".join(encode(entry) for entry in ONE_OF_EACH)
    assert data.count(b"\n") == len(ONE_OF_EACH)
    read = replay(data)
    assert list(read.entries.values()) == ONE_OF_EACH
    assert (read.damaged, read.foreign) == (0, 0)


def test_the_last_of_a_key_counts_and_gone_is_gone() -> None:
    intent = ProcessEntry(instance_key="k", mark="m", boot_id="b")
    started = msgspec.structs.replace(intent, pid=5, start_ticks=9)
    other = msgspec.structs.replace(intent, instance_key="q")
    written: list[Entry] = [intent, other, started, Gone(other.key)]
    read = replay(b"".join(map(encode, written)))
    assert list(read.entries.values()) == [started]
    assert compact(read.entries.values()) == encode(started)


def test_a_key_is_not_shown() -> None:
    assert "sk-1" not in repr(ONE_OF_EACH[1])


def test_what_a_later_version_wrote_is_passed_over() -> None:
    class Tomorrow(msgspec.Struct, tag_field="e", tag="tomorrow"):
        key: str = "x"

    known = encode(ONE_OF_EACH[0])
    read = replay(encode(Tomorrow()) + known)  # type: ignore[arg-type]
    assert (len(read.entries), read.damaged, read.foreign) == (1, 0, 1)


def test_fields_of_a_later_version_are_ignored() -> None:
    line = encode(ProcessEntry(instance_key="k", mark="m", boot_id="b"))
    body = line[9:-1].replace(b'"mark"', b'"extra":[1],"mark"')
    read = replay(b"%08x %b\n" % (crc32(body), body))
    assert list(read.entries) == ["process/m/k"]


@pytest.mark.parametrize("garbage", [b"", b"\n", b"\0" * 5000, b"\xff\xfe\n", b"deadbeef {}\n"])
def test_garbage_is_no_entry(garbage: bytes) -> None:
    assert replay(garbage).entries == {}


def test_lease_times_in_the_same_boot_hold_whatever_the_wall_clock_did() -> None:
    entry = lease_entry(_lease(), THIS_BOOT)
    later = Clocks(monotonic=130.0, wall=5.0, boot_id="boot-1")
    assert lease_of(entry, later).left_ms(later.monotonic) == 30_000


def test_lease_times_after_a_reboot_go_by_the_wall_clock() -> None:
    entry = lease_entry(_lease(), THIS_BOOT)
    later = Clocks(monotonic=3.0, wall=1_000_020.0, boot_id="boot-2")
    lease = lease_of(entry, later)
    assert lease.left_ms(later.monotonic) == 40_000
    assert lease.created == -17.0
    bound = lease_entry(_lease(ttl_ms=None), THIS_BOOT)
    assert lease_of(bound, later).deadline is None


entries_any = st.lists(
    st.one_of(
        st.builds(
            ProcessEntry,
            instance_key=st.sampled_from("ab"),
            mark=st.just("m"),
            boot_id=st.just("b"),
            pid=st.none() | st.integers(1, 9),
        ),
        st.builds(
            RuntimeEntry,
            instance_key=st.sampled_from("ab"),
            kind=st.just("boot"),
            spec=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        ),
        st.builds(Gone, st.sampled_from(["process/m/a", "process/m/b", "runtime/a"])),
    ),
    max_size=12,
)


def _model(entries: list[Entry]) -> dict[str, Live]:
    live: dict[str, Live] = {}
    for entry in entries:
        live.pop(entry.key, None)
        if not isinstance(entry, Gone):
            live[entry.key] = entry
    return live


@given(entries_any)
def test_replay_is_the_model_and_compaction_says_the_same(entries: list[Entry]) -> None:
    read = replay(b"".join(map(encode, entries)))
    assert read.entries == _model(entries)
    assert replay(compact(read.entries.values())).entries == read.entries


@given(entries_any, st.data())
def test_any_truncation_loses_only_what_was_cut(entries: list[Entry], data: st.DataObject) -> None:
    lines = list(map(encode, entries))
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    kept, length = 0, 0
    while kept < len(lines) and length + len(lines[kept]) <= cut:
        length += len(lines[kept])
        kept += 1
    read = replay(whole[:cut])
    assert read.entries == _model(entries[:kept])
    assert read.damaged == (cut > length)


@given(entries_any.filter(bool), st.data())
def test_any_flipped_bit_of_the_last_entry_loses_only_that(
    entries: list[Entry], data: st.DataObject
) -> None:
    before = b"".join(map(encode, entries[:-1]))
    last = bytearray(encode(entries[-1]))
    bit = data.draw(st.integers(0, len(last) * 8 - 1))
    last[bit // 8] ^= 1 << bit % 8
    read = replay(before + bytes(last))
    assert read.entries == _model(entries[:-1])
    assert read.damaged


@given(entries_any, st.binary(max_size=200), st.integers(0, 12))
def test_garbage_anywhere_takes_no_whole_line_with_it(
    entries: list[Entry], garbage: bytes, at: int
) -> None:
    lines = list(map(encode, entries))
    lines.insert(at, garbage.replace(b"\n", b"?") + b"\n")
    assert replay(b"".join(lines)).entries == _model(entries)


def test_lease_entry_round_trip() -> None:
    entry = ONE_OF_EACH[3]
    assert isinstance(entry, LeaseEntry)
    assert lease_of(entry, THIS_BOOT) == _lease()


def test_what_would_not_be_read_back_is_not_written() -> None:
    longest = RuntimeEntry(instance_key="k", kind="boot", spec={"x": ""})
    room = MAX_ENTRY_BYTES - len(encode(longest))
    longest = msgspec.structs.replace(longest, spec={"x": "y" * room})
    assert list(replay(encode(longest)).entries.values()) == [longest]
    with pytest.raises(EntryTooLong, match="shorten") as refused:
        encode(msgspec.structs.replace(longest, spec={"x": "y" * (room + 1)}))
    assert refused.value.code is ErrorCode.INVALID_REQUEST
