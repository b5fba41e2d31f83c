"""The daemon vanishes, talks nonsense or says no, at every point of an exchange, over a socket."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from inferd_client import (
    Client,
    ClientClosed,
    ConnectionLost,
    Embeddings,
    InferdError,
    NotFound,
    NotReady,
    ProtocolViolation,
    RequestRefused,
)
from inferd_proto import (
    Answer,
    BlockAnswer,
    DoneV2,
    ErrorCode,
    InputUsage,
    Result,
    ServerConnection,
    TextDelta,
    Usage,
)
from inferd_proto import Embeddings as EmbeddingsAnswer
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]


def _answer_bytes() -> bytes:
    """A whole answer to the request r1, as the daemon would write it."""
    from inferd_client.requests import generate
    from inferd_client.switchboard import Switchboard

    board, server = Switchboard(), ServerConnection()
    board.open(generate("x", {}, ""))
    server.receive_data(b"".join(board.outbox))
    assert server.next_event() is not None
    answers: list[Answer] = [
        BlockAnswer("r1", TextDelta("one")),
        BlockAnswer("r1", TextDelta("two")),
        DoneV2("r1", Usage(1, 2), "end_turn", "scripted"),
    ]
    return b"".join(server.send(answer) for answer in answers)


WHOLE = _answer_bytes()


@pytest.mark.parametrize("cut", range(0, len(WHOLE) + 1, 7))
def test_the_daemon_vanishes_in_mid_answer(run: Run, daemon: ScriptedDaemon, cut: int) -> None:
    def script(asked: Asked) -> None:
        asked.send_raw(WHOLE[:cut])
        asked.hang_up()

    daemon.script = script

    async def main() -> None:
        async with Client(daemon.path) as client:
            answer = client.generate("x")
            with pytest.raises(ConnectionLost):
                await answer.text()
            assert "onetwo".startswith(answer.completion.text)
            with pytest.raises(ConnectionLost):
                await client.status()

    run(main)


def test_everyone_who_waits_is_told(run: Run, daemon: ScriptedDaemon) -> None:
    waiting: list[Asked] = []

    def script(asked: Asked) -> None:
        waiting.append(asked)
        if len(waiting) % 5 == 0:
            asked.hang_up()

    daemon.script = script
    lost: list[str] = []

    async def main() -> None:
        async def ask() -> None:
            try:
                await client.generate("x").text()
            except ConnectionLost as error:
                lost.append(str(error))

        async with Client(daemon.path) as client, anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)

    run(main)
    assert len(lost) == 5


def test_the_client_closes_under_those_who_wait(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: None
    told: list[InferdError] = []

    async def main() -> None:
        async def ask() -> None:
            try:
                await client.generate("x").text()
            except ClientClosed as error:
                told.append(error)

        async with Client(daemon.path) as client, anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.sleep(0.05)
            client.close()
        with pytest.raises(ClientClosed):
            await client.status()

    run(main)
    assert len(told) == 2


def test_closing_the_client_tells_the_daemon(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.text("one")

    async def main() -> None:
        async with Client(daemon.path) as client:
            answer = client.generate("x")
            await anext(answer)
        with pytest.raises(ClientClosed):
            await anext(answer)

    run(main)
    assert daemon.clean_ends.acquire(timeout=PATIENCE_S)
    assert daemon.asked[0].cancelled.wait(PATIENCE_S)


def test_nonsense_is_the_daemons_fault(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(ProtocolViolation):
                await client.status()

    run(main)


def test_a_value_of_the_wrong_shape_is_the_daemons_fault(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.send(Result(asked.id, {"routes": [{"ready": True}]}))

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(ProtocolViolation, match="name"):
                await client.status()
            with pytest.raises(ProtocolViolation):
                await client.routes()

    run(main)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.INVALID_REQUEST, "RequestRefused"),
        (ErrorCode.QUEUE_FULL, "DaemonBusy"),
        (ErrorCode.BACKEND_UNAVAILABLE, "BackendFailed"),
        (ErrorCode.FRAME_TOO_LARGE, "RequestRefused"),
        (ErrorCode.INTERNAL, "DaemonFault"),
        (ErrorCode.ATTACHMENT_UNSUPPORTED, "RequestRefused"),
        (ErrorCode.TOOL_CALL_MALFORMED, "BackendFailed"),
        (ErrorCode.WIRE_VERSION_UNSUPPORTED, "RequestRefused"),
        (ErrorCode.EMBED_UNSUPPORTED, "RequestRefused"),
        (ErrorCode.RERANK_UNSUPPORTED, "RequestRefused"),
        (ErrorCode.NOT_FOUND, "NotFound"),
        (ErrorCode.PERMISSION_DENIED, "PermissionDenied"),
        (ErrorCode.CONFLICT, "Conflict"),
        (ErrorCode.INCOMPATIBLE, "Incompatible"),
        (ErrorCode.TIMEOUT, "OperationTimeout"),
    ],
)
def test_each_code_has_its_class(
    run: Run, daemon: ScriptedDaemon, code: ErrorCode, kind: str
) -> None:
    from inferd_proto import Error

    daemon.script = lambda asked: asked.send(Error(asked.id, code, "because", {"why": 1}))

    async def main() -> None:
        async with Client(daemon.path) as client:
            asks: list[Callable[[], Awaitable[object]]] = [
                client.generate("x").text,
                lambda: client.embed("x"),
                lambda: client.rerank("x", ["y"]),
                lambda: client.call("status"),
                client.stream("logs").__anext__,
            ]
            for ask in asks:
                with pytest.raises(InferdError) as raised:
                    await ask()
                error = raised.value
                assert type(error).__name__ == kind
                assert (error.code, error.message, error.details) == (code, "because", {"why": 1})  # type: ignore[attr-defined]

    run(main)


# -- the other verbs ---------------------------------------------------------------------


def test_vectors(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path, label="me") as client:
            embedded = await client.embed(["a", "b"], dimensions=3, task="similarity", model="demo")
            assert isinstance(embedded, Embeddings)
            assert embedded == EmbeddingsAnswer(
                "r1", [[0.0, 0.5, 1.0], [1.0, 0.5, 1.0]], 3, "demo", InputUsage(4), "scripted"
            )
            ranking = await client.rerank("q", ["a", "b", "c"], top_n=2)
            assert [(r.index, r.score) for r in ranking.results] == [(0, 1.0), (1, 0.0)]

    run(main)


def test_control(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            assert await client.call("echo", lease_ref="l1", ttl_ms=5) == {
                "lease_ref": "l1",
                "ttl_ms": 5,
            }
            async with client.stream("count") as items:
                assert [item async for item in items] == [0, 1, 2]
            status = await client.status()
            assert (status.version, status.state, status.ready) == ("0.1.0", "ready", True)
            assert status.routes[0].backends[0].capabilities["n_ctx"] == 4096
            routes = await client.routes()
            assert [route.name for route in routes] == ["demo", "big"]
            assert routes[0].answers_to("gpt")
            with pytest.raises(ProtocolViolation, match="Item"):
                await client.call("count")
            with pytest.raises(NotFound):
                await client.call("sing")

    run(main)


def test_waiting_for_a_route(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            assert (await client.wait_ready(timeout_s=PATIENCE_S)).ready
            assert (await client.wait_ready("gpt", timeout_s=PATIENCE_S)).ready
            with pytest.raises(NotReady, match=r"not ready after 0\.1 s: .*the model is loading"):
                await client.wait_ready("big", timeout_s=0.1)
            with pytest.raises(NotFound, match="the routes are: demo, big"):
                await client.wait_ready("small", timeout_s=5)

    run(main)


def test_a_client_that_is_not_entered_says_so() -> None:
    with pytest.raises(ClientClosed, match="async with"):
        Client().generate("x")


def test_a_refused_option_is_the_requests_fault(run: Run, daemon: ScriptedDaemon) -> None:
    """The daemon's own validation answers, through its connection."""

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(RequestRefused, match="top_p"):
                await client.generate("x", top_p=3.0).text()
            assert await client.generate("x").text() == "Hello from inferd."

    run(main)
