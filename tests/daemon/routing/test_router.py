"""Names to routes, and routes to the backend that answers."""

import pytest

from inferd_daemon.backends.base import (
    Backend,
    Capabilities,
    GenerateRequest,
    Readiness,
    RerankRequest,
)
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import BreakerConfig, MockConfig
from inferd_daemon.errors import RequestError
from inferd_daemon.routing.admission import UNBOUNDED, Admission
from inferd_daemon.routing.breaker import Breaker
from inferd_daemon.routing.gate import Gate
from inferd_daemon.routing.requirements import AnyRequest
from inferd_daemon.routing.router import Route, Router
from inferd_daemon.routing.upstream import Upstream
from inferd_proto import ErrorCode, Message, Text

HELLO = GenerateRequest([Message("user", [Text("hi")])])
READY = Readiness(True)
BROKEN = Readiness(False, "the model file is missing")
COMING = Readiness(False, "the model is loading", pending=True)


class Told(MockBackend):
    """A mock whose readiness and capabilities the test sets."""

    def __init__(
        self, name: str, readiness: Readiness = READY, can: Capabilities | None = None
    ) -> None:
        super().__init__(name, MockConfig())
        self._readiness = readiness
        self._can = can or Capabilities()

    @property
    def capabilities(self) -> Capabilities:
        return self._can

    def readiness(self) -> Readiness:
        return self._readiness


def route(name: str, *backends: MockBackend, aliases: tuple[str, ...] = ()) -> Route:
    tiers = [[Upstream(b, Breaker(BreakerConfig()), lambda: 0.0)] for b in backends]
    return Route(name, tiers, Gate(name, Admission(UNBOUNDED, 0)), aliases=aliases)


def chosen(asked: Route, request: AnyRequest) -> Backend:
    return asked.choose(request).upstream.backend


def not_found(router: Router, model: str | None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        router.find(model)
    return caught.value


def refusal(asked: Route, request: AnyRequest) -> RequestError:
    with pytest.raises(RequestError) as caught:
        asked.choose(request)
    return caught.value


def test_finds_by_name_by_alias_and_by_default() -> None:
    small, large = route("small"), route("large", aliases=("big", "qwen/72b"))
    router = Router([small, large], "small")
    for model, found in [
        ("small", small),
        ("large", large),
        ("big", large),
        ("qwen/72b", large),
        (None, small),
        ("", small),
    ]:
        assert router.find(model) is found


def test_the_default_may_be_an_alias_and_an_only_route_needs_none() -> None:
    large = route("large", aliases=("big",))
    assert Router([route("small"), large], "big").find(None) is large
    assert Router([large], None).find(None) is large
    assert Router([large], None).default is large


def test_an_unknown_name_and_no_name_are_refused_with_what_there_is() -> None:
    router = Router([route("small"), route("large")], None)
    assert router.default is None
    unknown = not_found(router, "huge")
    assert (unknown.code, unknown.message) == (
        ErrorCode.INVALID_REQUEST,
        "no route 'huge'; the routes are: small, large",
    )
    assert (
        "there is no default route; the routes are: small, large" in not_found(router, None).message
    )
    assert "the routes are: none" in not_found(Router([], None), None).message


def test_a_long_name_is_not_echoed_whole() -> None:
    assert len(not_found(Router([], None), "x" * 10_000).message) < 200


def test_the_first_ready_backend_answers() -> None:
    broken, first, second = Told("broken", BROKEN), Told("first"), Told("second")
    assert chosen(route("r", broken, first, second), HELLO) is first


def test_a_backend_on_its_way_is_better_than_none_and_worse_than_a_ready_one() -> None:
    coming, later, ready = Told("coming", COMING), Told("later", COMING), Told("ready")
    assert chosen(route("r", coming, ready), HELLO) is ready
    assert chosen(route("r", Told("broken", BROKEN), coming, later), HELLO) is coming


def test_a_backend_that_cannot_answer_is_passed_over() -> None:
    plain = Told("plain")
    ranks = Told("ranks", can=Capabilities(generate=False, rerank=True))
    both = route("r", plain, ranks)
    assert chosen(both, HELLO) is plain
    assert chosen(both, RerankRequest("q", ["d"])) is ranks


def test_why_nobody_can_answer() -> None:
    nobody = refusal(route("r", Told("a"), Told("b")), RerankRequest("q", ["d"]))
    assert nobody.code is ErrorCode.RERANK_UNSUPPORTED
    assert nobody.message == ("route r: a does not support reranking; b does not support reranking")


def test_who_could_answer_but_is_not_ready_makes_it_unavailable() -> None:
    ranks = Told("ranks", BROKEN, Capabilities(rerank=True))
    nobody = refusal(route("r", Told("plain"), ranks), RerankRequest("q", ["d"]))
    assert nobody.code is ErrorCode.BACKEND_UNAVAILABLE
    assert nobody.message == (
        "route r: plain does not support reranking; ranks is not ready: the model file is missing"
    )


def test_readiness_of_a_route() -> None:
    assert route("r", Told("a", BROKEN), Told("b")).readiness() == (True, "")
    assert route("r", Told("a", BROKEN), Told("b", COMING)).readiness() == (
        False,
        "a: the model file is missing; b: the model is loading",
    )
