"""Which upstream of a route gets a request: priority, load, and conversations."""

from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import Capabilities, EmbedRequest, GenerateRequest
from inferd_daemon.errors import BackendFault
from inferd_daemon.routing.router import Route
from inferd_daemon.routing.upstream import Upstream
from inferd_proto import Message, Text, Tool
from tests.daemon.routing.upstreams import BROKEN, COMING, Told, route_of, said, upstream

HELLO = said("hi")
DOWN = BackendFault("upstream answered 502")


class Pair:
    """Two or more equals with a clock that goes on by itself."""

    def __init__(self, *slots: int) -> None:
        self.now = 0.0
        self.upstreams = [
            upstream(Told(name, slots), self.clock)
            for name, slots in zip("abcdef", slots, strict=False)
        ]
        self.route = route_of(self.upstreams)

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    def serve(self, request: GenerateRequest) -> str:
        """From the beginning to the end."""
        choice = self.route.choose(request)
        choice.upstream.end(choice.upstream.begin(), None)
        self.route.remember(choice)
        return choice.upstream.name


def name_for(route: Route, request: GenerateRequest | EmbedRequest = HELLO) -> str:
    return route.choose(request).upstream.name


def fail(broken: Upstream, times: int = 3) -> None:
    for _ in range(times):
        broken.end(broken.begin(), DOWN)


def test_the_least_busy_one() -> None:
    pair = Pair(4, 4, 4)
    for expected in "abcabc":
        choice = pair.route.choose(HELLO)
        assert choice.upstream.name == expected
        choice.upstream.begin()
    pair.upstreams[1].in_flight -= 1
    assert name_for(pair.route) == "b"


def test_a_full_one_is_asked_last() -> None:
    pair = Pair(1, 8)
    for expected in "abbb":
        choice = pair.route.choose(HELLO)
        assert choice.upstream.name == expected
        choice.upstream.begin()


def test_new_conversations_go_round_when_all_are_idle() -> None:
    pair = Pair(2, 2, 2)
    assert [pair.serve(said(text)) for text in "uvwxyz"] == [*"abcabc"]


def test_a_conversation_stays_where_it_was() -> None:
    pair = Pair(2, 2)
    assert pair.serve(said("hi")) == "a"
    assert pair.serve(said("other")) == "b"
    assert pair.serve(said("hi", "hello", "go on")) == "a"
    assert pair.serve(said("other", "yes", "go on")) == "b"
    assert pair.serve(said("hi", "hello", "go on", "ok", "further")) == "a"
    pair.upstreams[0].in_flight = 1  # busier, but with room
    assert pair.serve(said("hi", "hello", "go on")) == "a"


def test_a_conversation_moves_where_its_upstream_has_no_room_or_is_away() -> None:
    pair = Pair(1, 1)
    assert pair.serve(said("hi")) == "a"
    first = pair.upstreams[0]
    first.in_flight = 1
    assert pair.serve(said("hi", "hello", "go on")) == "b"
    first.in_flight = 0
    assert pair.serve(said("hi", "hello", "go on", "ok", "and")) == "b"
    fail(pair.upstreams[1])
    assert pair.serve(said("hi", "hello", "go on", "ok", "and")) == "a"


def test_a_common_system_message_draws_nobody_together() -> None:
    pair = Pair(2, 2)
    served = [pair.serve(said("system: be kind", text)) for text in "uvwx"]
    assert served == [*"abab"]


def test_embeddings_have_no_conversation() -> None:
    pair = Pair(2, 2)
    for one in pair.upstreams:
        assert isinstance(one.backend, Told)
        one.backend.can = Capabilities(embed=True)
    choice = pair.route.choose(EmbedRequest(["x"]))
    assert (choice.upstream.name, choice.prefix) == ("a", None)


def test_a_single_upstream_is_not_asked_for_its_conversations() -> None:
    assert route_of([upstream(Told("a"))]).choose(HELLO).prefix is None


def test_the_next_tier_only_while_the_first_is_away() -> None:
    a, b, c = (upstream(Told(name)) for name in "abc")
    route = route_of([a], [b, c])
    a.in_flight = 100
    assert name_for(route) == "a"
    fail(a)
    assert name_for(route) == "b"
    fail(b)
    assert name_for(route) == "c"


def test_tools_never_reach_who_has_none() -> None:
    plain, able = Told("plain"), Told("able")
    able.can = Capabilities(tools=True)
    route = route_of([upstream(plain), upstream(able)])
    tool = Tool("f", {"type": "object"})
    request = GenerateRequest([Message("user", [Text("hi")])], tools=[tool])
    assert {name_for(route, request) for _ in range(4)} == {"able"}
    able.told = BROKEN
    plain_only = route_of([upstream(plain)], [upstream(able)])
    assert name_for(plain_only) == "plain"


def test_an_open_breaker_is_told_and_does_not_hide_who_is_coming() -> None:
    coming = Told("coming")
    coming.told = COMING
    a = upstream(Told("a"))
    fail(a)
    assert name_for(route_of([a], [upstream(coming)])) == "coming"
    route = route_of([a])
    assert route.readiness() == (
        False,
        "a: its breaker is open for another 30.0 s; its last failure: upstream answered 502",
    )


def test_permits_are_the_slots_of_the_tier_in_charge() -> None:
    a, b, c = Told("a", 4), Told("b", 8), Told("c", 16)
    asked = [upstream(backend) for backend in (a, b, c)]
    route = route_of(asked[:1], asked[1:])
    assert route.permits == 4
    fail(asked[0])
    assert route.permits == 24
    b.told = BROKEN
    assert route.permits == 16
    c.told = BROKEN
    assert route.permits == 4
    assert route_of(asked, permits=3).permits == 3


@given(st.lists(st.sampled_from(["begin", "end"]), max_size=120), st.data())
def test_always_one_with_the_fewest_in_flight(steps: list[str], data: st.DataObject) -> None:
    pair = Pair(1000, 1000, 1000)
    running: list[Upstream] = []
    for step in steps:
        loads = [one.in_flight for one in pair.upstreams]
        if step == "begin":
            chosen = pair.route.choose(HELLO).upstream
            assert chosen.in_flight == min(loads)
            chosen.begin()
            running.append(chosen)
        elif running:
            one = running.pop(data.draw(st.integers(0, len(running) - 1)))
            one.in_flight -= 1
    assert sum(one.in_flight for one in pair.upstreams) == len(running)
