"""Conversations and who served them, without a word of them."""

import gc

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import GenerateRequest
from inferd_daemon.routing.affinity import Affinity, prefix_hashes
from inferd_proto import Image, Message, Text, Tool, ToolResult, ToolUse
from tests.daemon.routing.upstreams import said

BLOCKS = st.one_of(
    st.builds(Text, st.text(max_size=20)),
    st.builds(
        ToolUse,
        st.just("c"),
        st.just("f"),
        st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
    ),
    st.builds(
        ToolResult,
        st.just("c"),
        st.lists(st.builds(Text, st.text(max_size=9)), min_size=1, max_size=2),
    ),
    st.builds(Image, st.just("i")),
)
MESSAGES = st.lists(
    st.builds(
        Message, st.sampled_from(["user", "assistant"]), st.lists(BLOCKS, min_size=1, max_size=2)
    ),
    min_size=1,
    max_size=4,
)


@given(messages=MESSAGES, more=MESSAGES)
def test_what_goes_on_begins_with_what_was(messages: list[Message], more: list[Message]) -> None:
    before = prefix_hashes(GenerateRequest(messages))
    after = prefix_hashes(GenerateRequest(messages + more))
    assert after[: len(before)] == before
    assert len(after) == len(messages) + len(more)


@given(messages=MESSAGES, other=MESSAGES)
def test_other_conversations_have_other_hashes(
    messages: list[Message], other: list[Message]
) -> None:
    same = msgspec.json.encode(messages) == msgspec.json.encode(other)
    one, two = prefix_hashes(GenerateRequest(messages)), prefix_hashes(GenerateRequest(other))
    assert (one[-1] == two[-1]) == same


def test_system_messages_alone_are_no_conversation() -> None:
    assert prefix_hashes(said("system: be kind")) == []
    hashes = prefix_hashes(said("system: be kind", "hi"))
    assert len(hashes) == 1
    assert hashes != prefix_hashes(said("system: be rude", "hi"))


def test_tools_are_part_of_the_conversation() -> None:
    plain = said("hi")
    with_tools = msgspec.structs.replace(plain, tools=[Tool("f", {"type": "object"})])
    assert prefix_hashes(plain) != prefix_hashes(with_tools)


def test_the_longest_known_beginning_decides() -> None:
    affinity = Affinity()
    affinity.remember(prefix_hashes(said("hi"))[-1], "a")
    affinity.remember(prefix_hashes(said("hi", "hello", "more"))[-1], "b")
    for conversation, upstream in [
        (("hi",), "a"),
        (("hi", "hey", "what"), "a"),
        (("hi", "hello", "more", "sure", "and more"), "b"),
        (("hello",), None),
    ]:
        assert affinity.find(prefix_hashes(said(*conversation))) == upstream


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), max_size=60))
def test_keeps_the_latest(served: list[tuple[int, str]]) -> None:
    affinity = Affinity(capacity=4)
    latest: dict[int, str] = {}
    for prefix, upstream in served:
        affinity.remember(prefix, upstream)
        latest.pop(prefix, None)
        latest[prefix] = upstream
    kept = dict(list(latest.items())[-4:])
    assert {prefix: affinity.find([prefix]) for prefix in range(10)} == {
        prefix: kept.get(prefix) for prefix in range(10)
    }
    assert len(affinity) == len(kept)


def test_keeps_no_text() -> None:
    affinity = Affinity()
    affinity.remember(prefix_hashes(said("a secret of forty-two words"))[-1], "a")
    reachable: list[object] = []
    todo: list[object] = [affinity]
    while todo:
        thing = todo.pop()
        reachable.append(thing)
        if not isinstance(thing, type):
            todo += [
                r for r in gc.get_referents(thing) if not any(r is known for known in reachable)
            ]
    assert not any("secret" in thing for thing in reachable if isinstance(thing, str))
