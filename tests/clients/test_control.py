"""The other verbs for leases and runtimes: what they ask, and what they make of the answers."""

from collections.abc import Awaitable, Callable

import pytest

from inferd_client import (
    Client,
    Conflict,
    LogLine,
    NotFound,
    ProtocolViolation,
    Runtime,
    RuntimeState,
)
from inferd_client.blocking import Client as BlockingClient
from inferd_client.runtimes import find_runtime, to_change, to_runtimes
from inferd_client.status import to_routes
from inferd_proto import Control, Item, Result, StreamDone
from tests.clients.lease_records import LEASE, LOG, RUNTIMES
from tests.clients.lease_script import arguments, when
from tests.clients.scripted_daemon import PATIENCE_S, ROUTES, Asked, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]

QWEN = LEASE["instance_key"]
LINES = [LogLine("loading"), LogLine("", missed=3), LogLine("listening")]


def test_every_verb(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path, label="me") as client:
            ensured = await client.ensure("qwen3", ttl=90)
            assert ensured.endpoint.lease_ref == ensured.lease.lease_ref
            assert (await client.plan("qwen3")).verdict == "refused"
            assert arguments(daemon, "lease.ensure")["plan"] is True
            assert (await client.renew("lease-abc", 12.5)).ttl_ms == 12_500
            await client.release("lease-abc")
            assert [lease.lease_ref for lease in await client.leases(owner="me")] == ["lease-abc"]
            assert [runtime.name for runtime in await client.runtimes()] == [
                "qwen",
                "tiny",
                "bad",
                "cold",
            ]
            assert (await client.runtime("tiny")).state is RuntimeState.READY
            assert (await client.stop("qwen3-8b-0011")).pid == 4300
            await client.restart("qwen", force=True)
            assert [line async for line in client.logs("tiny", lines=7)] == LINES
            async with client.watch() as changes:
                assert [change.type async for change in changes] == [
                    "snapshot",
                    "runtime",
                    "lease",
                    "route",
                    "route",
                    "daemon",
                    "weather",
                ]
            with pytest.raises(NotFound, match="no runtime 'nobody'; the runtimes are: qwen"):
                await client.logs("nobody").__anext__()

    run(main)
    _check_what_was_asked(daemon)


def test_every_verb_blocking(daemon: ScriptedDaemon) -> None:
    with BlockingClient(daemon.path, label="me") as client:
        assert client.ensure("qwen3", ttl=90).lease.lease_ref == "lease-abc"
        assert client.plan("qwen3").blocked_by[0].name == "qwen"
        assert client.renew("lease-abc", 12.5).ttl_ms == 12_500
        client.release("lease-abc")
        assert len(client.leases(owner="me")) == 1
        assert len(client.runtimes()) == 4
        assert client.runtime("tiny").health == "healthy"
        assert client.stop("qwen3-8b-0011").pid == 4300
        client.restart("qwen", force=True)
        assert list(client.logs("tiny", lines=7)) == LINES
        with client.watch() as changes:
            assert next(changes).runtimes[0].name == "qwen"
    _check_what_was_asked(daemon)


def _check_what_was_asked(daemon: ScriptedDaemon) -> None:
    assert arguments(daemon, "lease.ensure")["bind"] == "none"
    assert arguments(daemon, "lease.renew") == {"lease_ref": "lease-abc", "ttl_ms": 12_500}
    assert arguments(daemon, "lease.release") == {"lease_ref": "lease-abc"}
    assert arguments(daemon, "lease.list") == {"owner_ref": "me"}
    assert arguments(daemon, "runtime.stop") == {"instance_key": QWEN, "force": False}
    assert arguments(daemon, "runtime.restart") == {"instance_key": QWEN, "force": True}
    tiny = RUNTIMES[1]["instance_key"]
    assert arguments(daemon, "logs") == {"instance_key": tiny, "follow": False, "lines": 7}


def test_a_log_that_is_followed_may_be_silent_for_long(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(asked: Asked) -> None:
        assert isinstance(asked.request, Control)
        asked.send(Item(asked.id, LOG[0]))
        asked.cancelled.wait(0.4 if asked.request.arguments["follow"] else PATIENCE_S)
        asked.send(Item(asked.id, LOG[2]), StreamDone(asked.id))

    daemon.script = when("logs", slowly)
    with BlockingClient(daemon.path, timeout_s=0.1) as client:
        # Which runtime is meant is asked for before, and is no part of the log's silence.
        monkeypatch.setattr(client, "runtime", lambda _: to_runtimes({"runtimes": RUNTIMES})[1])
        assert len(list(client.logs("tiny", follow=True))) == 2
        with pytest.raises(TimeoutError):
            list(client.logs("tiny"))


def test_a_change_is_typed_and_open_to_news() -> None:
    change = to_change({"type": "lease", "event": "expired", "lease": LEASE, "more": 1})
    assert change.lease is not None
    assert (change.event, change.lease.lease_ref) == ("expired", "lease-abc")
    assert change.fields["more"] == 1
    news = to_change({"type": "weather", "runtime": "sunny"})
    assert (news.runtime, news.fields["runtime"]) == (None, "sunny")


@pytest.mark.parametrize(
    "value", [7, {"lease": LEASE}, {"type": 7}, {"type": "lease", "lease": {"lease_ref": 7}}]
)
def test_a_change_that_makes_no_sense(value: object) -> None:
    with pytest.raises(ProtocolViolation):
        to_change(value)


def test_answers_that_make_no_sense_are_told_without_their_keys(daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.send(Result(asked.id, {"lease": "Bearer s3cret"}))
    with BlockingClient(daemon.path) as client:
        for ask in (
            lambda: client.ensure("x"),
            lambda: client.plan("x"),
            lambda: client.renew("x", 1),
            client.leases,
            client.runtimes,
        ):
            with pytest.raises(ProtocolViolation, match="makes no sense") as caught:
                ask()
            assert "s3cret" not in str(caught.value)


def test_a_code_of_a_newer_daemon_breaks_nothing(daemon: ScriptedDaemon) -> None:
    def too_warm(asked: Asked) -> None:
        body = f'{{"id":"{asked.id}","type":"error","code":"too_warm","message":"40 degrees"}}'
        asked.send_raw(bytes([len(body), 1]) + body.encode())

    daemon.script = when("lease.list", too_warm)
    with BlockingClient(daemon.path) as client:
        with pytest.raises(Exception, match="40 degrees"):
            client.leases()
        assert client.status().pid == 4242


def runtime(name: str, key: str, model: str = "m") -> Runtime:
    return to_runtimes(
        {"runtimes": [RUNTIMES[0] | {"name": name, "instance_key": key, "model_identity": model}]}
    )[0]


FOUND = [
    runtime("demo", "aaa-1", "llama"),
    runtime("other", "aab-2", "qwen"),
    runtime("qwen", "bbb-3", "qwen"),
]


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("aaa-1", "aaa-1"),
        ("aaa", "aaa-1"),
        ("b", "bbb-3"),
        ("demo", "aaa-1"),
        ("gpt", "aaa-1"),  # an alias of the route that demo stands behind
        ("qwen", "bbb-3"),  # the name before the model
        ("llama", "aaa-1"),
    ],
)
def test_a_word_means_a_runtime(word: str, key: str) -> None:
    assert find_runtime(FOUND, to_routes({"routes": ROUTES}), word).instance_key == key


def test_a_word_that_means_none_or_several() -> None:
    with pytest.raises(Conflict, match="'aa' may mean any of aaa-1, aab-2"):
        find_runtime(FOUND, [], "aa")
    for word in ("", "gpt", "big"):
        with pytest.raises(NotFound):
            find_runtime(FOUND, [], word)
    with pytest.raises(NotFound, match="the runtimes are: none"):
        find_runtime([], [], "x")
