"""The blocking client: one thread, many threads, Ctrl-C, deadlines, a daemon that vanishes."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferd_client import (
    AnswerTimeout,
    ClientClosed,
    ConnectionLost,
    Done,
    NotFound,
    NotReady,
    ProtocolViolation,
    RgbImage,
    TextDelta,
    Tool,
    user,
)
from inferd_client.blocking import Client
from inferd_proto import GenerateV2, Usage
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon, friendly

WAIT_MS = 60_000
"""Of an operation that may wait: this comes on top of the client's own timeout."""


def _hello(asked: Asked) -> None:
    asked.text("hello")
    asked.done(1)


def _first(script: Callable[[Asked], None]) -> Callable[[Asked], None]:
    """The first request gets `script`, the others a greeting."""
    return lambda asked: (script if asked.id == "r1" else _hello)(asked)


def test_every_verb(daemon: ScriptedDaemon) -> None:
    with Client(daemon.path, label="me", encoding="msgpack", timeout_s=60) as client:
        with client.generate("x", max_tokens=3) as answer:
            assert list(answer) == [
                TextDelta("Hello"),
                TextDelta(" from"),
                TextDelta(" inferd."),
                Done("end_turn", Usage(7, 3), "scripted"),
            ]
        assert list(client.generate_v1("x").deltas()) == ["Hello", " from v1."]
        call = client.generate("x", tools=[Tool("t", {})], tool_choice="required").collect()
        assert [(c.name, c.input) for c in call.tool_calls] == [("t", {"city": "Oslo"})]
        assert client.embed(["a", "b"]).embeddings == [[0.0, 0.5, 1.0], [1.0, 0.5, 1.0]]
        assert [r.index for r in client.rerank("q", ["a", "b"], top_n=1).results] == [0]
        assert client.call("echo", a=[1]) == {"a": [1]}
        assert list(client.stream("count")) == [0, 1, 2]
        assert client.status().pid == 4242
        assert [route.name for route in client.routes()] == ["demo", "big"]
        assert client.wait_ready("demo", timeout_s=60).ready
        with pytest.raises(NotReady):
            client.wait_ready("big", timeout_s=0.1)
        with pytest.raises(NotFound):
            client.call("sing")
        with pytest.raises(ProtocolViolation):
            client.call("count")
    asked = daemon.asked[0].request
    assert isinstance(asked, GenerateV2)
    assert (asked.client, asked.max_tokens) == ("me", 3)


def test_threads_share_a_client(daemon: ScriptedDaemon) -> None:
    together = threading.Barrier(16)

    def script(asked: Asked) -> None:
        together.wait(PATIENCE_S)
        for i in range(50):
            asked.text(f"{asked.id}.{i} ")
        asked.done(50)

    daemon.script = script
    with Client(daemon.path, timeout_s=60) as client, ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda _: client.generate("x").text(), range(16)))
    assert set(texts) == {"".join(f"r{n}.{i} " for i in range(50)) for n in range(1, 17)}


def test_the_one_that_reads_hands_over_when_its_time_is_up(daemon: ScriptedDaemon) -> None:
    go = threading.Event()

    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.await_cancel()
            go.set()
        else:
            assert go.wait(PATIENCE_S)
            friendly(asked)

    daemon.script = script
    with Client(daemon.path, timeout_s=0.5) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.generate("x").text)
        while not daemon.asked:
            threading.Event().wait(0.01)
        second = pool.submit(client.call, "echo", wait_ms=WAIT_MS)
        assert second.result(PATIENCE_S) == {"wait_ms": WAIT_MS}
        with pytest.raises(AnswerTimeout):
            first.result(PATIENCE_S)


def test_silence_is_bounded_and_cancels(daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.text("one")
            asked.await_cancel()
        else:
            friendly(asked)

    daemon.script = script
    with Client(daemon.path, timeout_s=PATIENCE_S) as client:
        answer = client.generate("x")
        assert next(answer) == TextDelta("one")
        answer._timeout_s = 0.1
        began = time.monotonic()
        with pytest.raises(AnswerTimeout, match="within the client's timeout"):
            answer.text()
        assert time.monotonic() - began < PATIENCE_S / 2
        assert answer.completion.text == "one"
        assert daemon.asked[0].cancelled.is_set()
        assert client.generate("x").text() == "Hello from inferd."


def test_silence_before_an_answer_is_bounded_too(daemon: ScriptedDaemon) -> None:
    daemon.script = Asked.await_cancel
    with Client(daemon.path, timeout_s=0.1) as client, pytest.raises(AnswerTimeout):
        client.generate("x").text()


def test_leaving_the_block_cancels(daemon: ScriptedDaemon) -> None:
    def endless(asked: Asked) -> None:
        while not asked.cancelled.is_set():
            asked.text("more ")
        asked.done(reason="cancelled")

    daemon.script = _first(endless)
    with Client(daemon.path, timeout_s=60) as client:
        with client.generate("x") as answer:
            for _ in answer:
                break
        assert daemon.asked[0].cancelled.is_set()
        assert list(answer) == []
        assert client.generate("x").text() == "hello"


def test_ctrl_c_cancels_and_leaves_the_client_usable(daemon: ScriptedDaemon) -> None:
    main = threading.get_ident()

    def script(asked: Asked) -> None:
        asked.text("one")
        threading.Event().wait(0.05)
        signal.pthread_kill(main, signal.SIGINT)
        asked.await_cancel()

    daemon.script = _first(script)
    with Client(daemon.path, timeout_s=60) as client:
        with pytest.raises(KeyboardInterrupt):
            client.generate("x").text()
        assert daemon.asked[0].cancelled.is_set()
        assert client.generate("x").text() == "hello"


def test_closing_from_another_thread_wakes_those_who_wait(daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: None
    with Client(daemon.path, timeout_s=None) as client, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.generate("x").text) for _ in range(3)]
        while len(daemon.asked) < 3:
            threading.Event().wait(0.01)
        client.close()
        for future in waiting:
            with pytest.raises(ClientClosed):
                future.result(PATIENCE_S)
        with pytest.raises(ClientClosed):
            client.status()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_the_daemon_vanishes(daemon: ScriptedDaemon, after: int) -> None:
    def script(asked: Asked) -> None:
        asked.text(*["piece"] * after)
        asked.hang_up()

    daemon.script = script
    with Client(daemon.path, timeout_s=60) as client:
        answer = client.generate("x")
        with pytest.raises(ConnectionLost):
            answer.text()
        assert answer.completion.text == "piece" * after
        with pytest.raises(ConnectionLost):
            client.status()


def test_an_upload_to_a_daemon_that_stopped_reading_is_bounded(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd_client.blocking_link.END_TIMEOUT_S", 0.1)
    listener_only = daemon.path.with_name("deaf.sock")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(listener_only))
        deaf.listen(1)
        picture = RgbImage(bytes(1000 * 1000 * 3), width=1000, height=1000)
        with (
            Client(listener_only, timeout_s=0.1) as client,
            pytest.raises(AnswerTimeout),
        ):
            client.generate([user("x", picture)]).text()


def test_an_upload_goes_out_while_answers_fill_the_socket(daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.text(*["x" * 100] * 5000)
            asked.done(5000)
        else:
            _hello(asked)

    daemon.script = script
    picture = RgbImage(bytes(2000 * 2000 * 3), width=2000, height=2000)
    with Client(daemon.path, timeout_s=60) as client, client.generate("x") as answer:
        next(answer)
        assert client.generate([user("y", picture)]).text() == "hello"
        assert len(list(answer)) == 5000


def test_a_dropped_stream_is_reported(daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        asked.text("one")
        asked.await_cancel()

    daemon.script = script
    with Client(daemon.path, timeout_s=60) as client:
        answer = client.generate("x")
        next(answer)
        with pytest.warns(ResourceWarning, match="use `with`"):
            answer.__del__()
        answer.close()


def test_a_client_that_is_not_entered_says_so() -> None:
    with pytest.raises(ClientClosed, match="with Client"):
        Client().status()
