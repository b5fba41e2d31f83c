"""Fragments to calls: counted well, badly or not at all, split and interleaved."""

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.chat_completions.chunks import CallPiece, FunctionPiece
from inferd_daemon.backends.chat_completions.tool_calls import MAX_LOOKS, ToolCallGatherer
from inferd_daemon.errors import ModelFault
from inferd_proto import ErrorCode, JsonObject

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = frozenset({"get", "put", "get_time", "weather", "getput"})
Whole = tuple[str, str, JsonObject]
A: JsonObject = {"a": 1}
B: JsonObject = {"b": 2}


def part(
    name: str | None = None,
    arguments: str | JsonObject | None = None,
    *,
    id: str | None = None,
    index: float | str | None = None,
) -> CallPiece:
    return CallPiece(index=index, id=id, function=FunctionPiece(name, arguments))


def gather(pieces: list[CallPiece], names: frozenset[str] = NAMES) -> list[Whole]:
    """The calls; an id that was made up for one is shown as `*`."""
    gatherer = ToolCallGatherer(names)
    for piece in pieces:
        gatherer.add(piece)
    calls = gatherer.take(complete=True)
    assert len({call.id for call in calls}) == len(calls)
    return [(c.id if len(c.id) != 21 else "*", c.name, c.input) for c in calls]


NO_JOIN = NAMES - {"getput"}
ALL_ZERO: dict[str, tuple[list[CallPiece], list[Whole]]] = {
    "without arguments, with ids": (
        [part("get", "", id="c1", index=0), part("put", "", id="c2", index=0)],
        [("c1", "get", {}), ("c2", "put", {})],
    ),
    "without arguments or ids": (
        [part("get", index=0), part("put", index=0)],
        [("*", "get", {}), ("*", "put", {})],
    ),
    "the same tool twice, without arguments": (
        [part("get", id="c1", index=0), part("get", id="c2", index=0)],
        [("c1", "get", {}), ("c2", "get", {})],
    ),
    "arguments follow, those of the last call": (
        [
            part("get", "", id="c1", index=0),
            part(arguments='{"a":', index=0),
            part(arguments="1}", index=0),
            part("put", "", id="c2", index=0),
            part(arguments='{"b":', index=0),
            part(arguments="2}", index=0),
        ],
        [("c1", "get", A), ("c2", "put", B)],
    ),
    "interleaved by id": (
        [
            part("get", "", id="c1", index=0),
            part("put", "", id="c2", index=0),
            part(arguments='{"a":', id="c1", index=0),
            part(arguments='{"b":2}', id="c2", index=0),
            part(arguments="1}", id="c1", index=0),
        ],
        [("c1", "get", A), ("c2", "put", B)],
    ),
    "without ids": (
        [part("get", '{"a":1}', index=0), part("put", '{"b":2}', index=0)],
        [("*", "get", A), ("*", "put", B)],
    ),
    "the same tool without ids": (
        [part("get", '{"a":1}', index=0), part("get", '{"b":2}', index=0)],
        [("*", "get", A), ("*", "get", B)],
    ),
    "one id for all": (
        [part("get", '{"a":1}', id="x", index=0), part("put", '{"b":2}', id="x", index=0)],
        [("x", "get", A), ("*", "put", B)],
    ),
    "the second name in parts": (
        [part("get", index=0), part("wea", index=0), part("ther", "{}", index=0)],
        [("*", "get", {}), ("*", "weather", {})],
    ),
    "tools that nobody offered, with ids": (
        [part("foo", "", id="c1", index=0), part("bar", "", id="c2", index=0)],
        [("c1", "foo", {}), ("c2", "bar", {})],
    ),
    "tools that nobody offered, without ids": (
        [part("foo", '{"a":1}', index=0), part("bar", '{"b":2}', index=0)],
        [("*", "foo", A), ("*", "bar", B)],
    ),
    "arguments as objects": (
        [part("get", A, index=0), part("get", B, index=0)],
        [("*", "get", A), ("*", "get", B)],
    ),
}


@pytest.mark.parametrize("index", [0, None, "0", 0.0, "first"])
@pytest.mark.parametrize(("pieces", "calls"), ALL_ZERO.values(), ids=ALL_ZERO)
def test_calls_that_are_not_counted_apart(
    pieces: list[CallPiece], calls: list[Whole], index: float | str | None
) -> None:
    pieces = [CallPiece(index, piece.id, piece.function) for piece in pieces]
    assert gather(pieces, NO_JOIN) == calls


ONE_CALL: dict[str, list[CallPiece]] = {
    "short id and name repeated": [
        part("get", "{", id="1", index=0),
        part("get", '"a":1}', id="1", index=0),
    ],
    "short id repeated": [part("get", "{", id="1", index=0), part(None, '"a":1}', id="1", index=0)],
    "short name repeated": [part("get", "{", id="1"), part("get", '"a":1'), part("get", "}")],
    "name repeated behind the end": [part("get", '{"a":1}', id="1", index=0), part("get", index=0)],
    "all repeated behind the end": [
        part("get", '{"a":1}', id="1", index=0),
        part("get", "", id="1", index=0),
    ],
    "id and name in parts": [
        part("g", '{"a"', id="1", index=0),
        part("et", ":1}", index=0),
    ],
    "arguments before the name is whole": [
        part("g", '{"a":1}', id="1", index=0),
        part("et", index=0),
    ],
    "counted in text": [part("get", "{", id="1", index="0"), part(None, '"a":1}', index="0")],
}


@pytest.mark.parametrize("pieces", ONE_CALL.values(), ids=ONE_CALL)
def test_what_is_one_call(pieces: list[CallPiece]) -> None:
    assert gather(pieces) == [("1", "get", A)]


def test_a_name_that_joins_to_a_tools_is_one() -> None:
    parts = [part("get", index=0), part("_time", index=0), part(None, '{"a":1}', index=0)]
    assert gather(parts) == [("*", "get_time", A)]
    parts = [part("get", id="c", index=0), part("_time", '{"a":1}', id="1", index=0)]
    assert gather(parts) == [("c1", "get_time", A)]


def test_two_tools_whose_names_join_to_a_third_are_told_apart_by_their_ids() -> None:
    assert gather([part("get", index=0), part("put", index=0)]) == [("*", "getput", {})]
    parts = [part("get", id="c1", index=0), part("put", id="c2", index=0)]
    assert gather(parts) == [("c1", "get", {}), ("c2", "put", {})]


def test_indices_may_come_as_text_and_in_any_order() -> None:
    parts = [part("put", '{"b":2}', index="1"), part("get", '{"a":', index=0.0)]
    parts.append(part(None, "1}", index="0"))
    assert gather(parts) == [("*", "get", A), ("*", "put", B)]


def test_broken_arguments_still_fail_where_calls_are_not_counted_apart() -> None:
    gatherer = ToolCallGatherer(NO_JOIN)
    for piece in (part("get", '{"a":', index=0), part("put", "{}", index=0)):
        gatherer.add(piece)
    with pytest.raises(ModelFault) as caught:
        gatherer.take(complete=True)
    assert caught.value.code is ErrorCode.TOOL_CALL_MALFORMED


def test_looking_for_the_end_of_arguments_is_bounded() -> None:
    gatherer = ToolCallGatherer()
    gatherer.add(part("f", '{"a":"', index=0))
    for _ in range(3 * MAX_LOOKS):
        gatherer.add(part("f", "{", index=0))
    assert gatherer._looks == MAX_LOOKS


def cut(text: str, at: list[float]) -> list[str]:
    edges = [0, *sorted(round(share * len(text)) for share in at), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[Whole], list[CallPiece]]:
    """Calls, each in parts cut anywhere, the parts of all shuffled into one another."""
    shares = st.lists(st.floats(0, 1), min_size=3, max_size=3)
    wholes: list[Whole] = []
    waiting: list[Iterator[CallPiece]] = []
    for index in range(draw(st.integers(1, 4))):
        identity = f"call_{index}"
        name = draw(st.sampled_from(sorted(NO_JOIN)))
        value: JsonObject = {"n": index, "text": draw(st.text(max_size=5))}
        arguments = msgspec.json.encode(value).decode()
        wholes.append((identity, name, value))
        columns = [cut(text, draw(shares)) for text in (identity, name, arguments)]
        fragments = zip(*columns, strict=True)
        waiting.append(iter([part(n, a, id=i, index=index) for i, n, a in fragments]))
    order = draw(st.permutations([i for i in range(len(waiting)) for _ in range(4)]))
    return wholes, [next(waiting[i]) for i in order]


@given(interleaved())
def test_any_split_and_any_order_of_counted_calls_gives_the_same(
    case: tuple[list[Whole], list[CallPiece]],
) -> None:
    wholes, pieces = case
    assert gather(pieces, NO_JOIN) == wholes


@given(
    st.lists(st.tuples(st.sampled_from(sorted(NO_JOIN)), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([0, None, "0"]),
    st.booleans(),
    st.integers(1, 8),
)
def test_calls_one_after_the_other_are_told_apart_however_their_arguments_are_cut(
    made: list[tuple[str, bool]], index: int | str | None, ids: bool, size: int
) -> None:
    """With ids always; without, wherever something of a call shows that it is the next."""
    wholes: list[Whole] = []
    pieces: list[CallPiece] = []
    for n, (name, bare) in enumerate(made):
        # who has no id and follows a call of the same tool shows itself by its arguments
        bare = bare and (ids or all(name != other for other, _ in made[:n] + made[n + 1 :]))
        text = "" if bare else f'{{"n":{n}}}'
        first = text if not ids else ""
        wholes.append((f"c{n}" if ids else "*", name, {} if bare else {"n": n}))
        pieces.append(part(name, first, id=f"c{n}" if ids else None, index=index))
        rest = text.removeprefix(first) if first else text
        pieces += [
            part(None, rest[at : at + size], index=index) for at in range(0, len(rest), size)
        ]
    assert gather(pieces, NO_JOIN) == wholes
