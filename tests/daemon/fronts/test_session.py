"""A session over a real socket: requests side by side, their ends, and what breaks.

Where time matters a mock clock jumps over it: both ends are in this process, and no thread works.
"""

import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from itertools import count

import msgspec
import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.base import Batch, Finished, GenerateRequest, TextDeltas
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.call import Call
from inferd_daemon.control.verbs import STREAMS
from inferd_daemon.errors import BackendFault
from inferd_daemon.fronts.session import MAX_TASKS
from inferd_daemon.fronts.translation import MAX_WHOLE_TEXT_BYTES
from inferd_proto import FrameReader, FrameType, Usage, pack
from tests.daemon.fronts.conversation import (
    HELLO,
    Answer,
    Conversation,
    daemon,
    eventually,
    frame,
    text_of,
    view_of,
)

END = Finished("end_turn", Usage(1, 2))


class Scripted(MockBackend):
    """Yields batches from a script; counts what runs."""

    def __init__(self, script: Callable[[], AsyncGenerator[Batch, None]]) -> None:
        super().__init__("scripted", MockConfig())
        self._script = script
        self.running = 0
        self.requests: list[GenerateRequest] = []

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        self.requests.append(request)
        self.running += 1
        script = self._script()
        try:
            async for batch in script:
                yield batch
        finally:
            self.running -= 1
            with trio.CancelScope(shield=True):
                await script.aclose()


def mock(**config: object) -> MockBackend:
    return MockBackend("mock", MockConfig(**config))  # type: ignore[arg-type]


async def flood() -> AsyncGenerator[Batch, None]:
    while True:
        yield [TextDeltas(["x" * 1000] * 10)]


async def silence() -> AsyncGenerator[Batch, None]:
    yield [TextDeltas(["a"])]
    await trio.sleep_forever()


async def test_a_v2_answer_frame_by_frame() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        await client.generate("1", max_tokens=2)
        assert await client.hear_until_end("1") == [
            {"type": "frame", "id": "1", "block": {"type": "text", "delta": "tok0 "}},
            {"type": "frame", "id": "1", "block": {"type": "text", "delta": "tok1 "}},
            {
                "type": "done",
                "id": "1",
                "usage": {"input_tokens": 1, "output_tokens": 2},
                "stop_reason": "max_tokens",
                "backend": "mock",
            },
        ]


async def test_a_v1_answer_token_by_token() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        messages = [{"role": "user", "content": "hi there"}]
        await client.say(id="1", api_version=1, messages=messages, max_tokens=2)
        assert await client.hear_until_end("1") == [
            {"type": "token", "id": "1", "content": "tok0 "},
            {"type": "token", "id": "1", "content": "tok1 "},
            {
                "type": "done",
                "id": "1",
                "content": "tok0 tok1 ",
                "usage": {"prompt_tokens": 2, "completion_tokens": 2},
                "stop_reason": "length",
                "backend": "mock",
            },
        ]


async def test_requests_run_side_by_side(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=2))) as running:
        client = running.connect()
        for request_id in ("slow", "fast"):
            await client.generate(request_id, max_tokens=30 if request_id == "slow" else 5)
        heard = await client.hear_until_end("fast")
        assert text_of(heard) == "".join(f"tok{i} " for i in range(5))
        assert (await client.hear_end("slow"))["usage"]["output_tokens"] == 30


async def test_messagepack_is_answered_in_messagepack() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        request = {"wire_version": 1, "id": "m", "messages": HELLO, "max_tokens": 1}
        await client.say_bytes(pack(FrameType.MSGPACK, msgspec.msgpack.encode(request)))
        reader = FrameReader()
        answers: list[Answer] = []
        while not answers or answers[-1]["type"] == "frame":
            reader.feed(await client.sock.recv(65_536))
            while (got := reader.next()) is not None:
                assert got.type is FrameType.MSGPACK
                answers.append(msgspec.msgpack.decode(got.payload or b""))
        assert [answer["type"] for answer in answers] == ["frame", "done"]


async def test_attachments_reach_the_backend() -> None:
    async def script() -> AsyncGenerator[Batch, None]:
        yield [END]

    backend = Scripted(script)
    async with daemon(view_of(backend)) as running:
        client = running.connect()
        await client.say(
            id="1",
            messages=[{"role": "user", "content": [{"type": "image", "attachment_id": "i"}]}],
            attachments=[{"kind": "image", "id": "i", "width": 2, "height": 1}],
        )
        announcement = {"type": "attachment_blob", "attachment_id": "i", "len": 6}
        await client.say_bytes(
            pack(FrameType.JSON, json.dumps(announcement).encode())
            + pack(FrameType.BLOB, b"rgbRGB")
        )
        assert (await client.hear_end("1"))["type"] == "done"
    assert backend.requests[0].media["i"].data == b"rgbRGB"


# -- cancelling ----------------------------------------------------------------------------


async def test_cancel_ends_one_request_and_leaves_the_other(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=5))) as running:
        client = running.connect()
        await client.generate("a", max_tokens=10_000)
        await client.generate("b", max_tokens=10)
        heard = [await client.hear()]
        await client.say(op="cancel", id="a")
        while heard[-1]["type"] != "done":
            heard.append(await client.hear())
        end = heard[-1]
        assert (end["id"], end["stop_reason"]) == ("a", "cancelled")
        produced = sum(answer["id"] == "a" for answer in heard[:-1])
        assert end["usage"] == {"input_tokens": 0, "output_tokens": produced}
        await client.say(op="cancel", id="a")  # ended already: no answer
        await client.say(op="cancel", id="never")
        assert (await client.hear_end("b"))["stop_reason"] == "max_tokens"
        await client.say(op="status", id="s")
        assert (await client.hear())["id"] == "s"


@pytest.mark.parametrize("copies", [1, 3])
async def test_cancel_in_the_same_bytes_as_the_request(
    copies: int, autojump_clock: MockClock
) -> None:
    async with daemon(view_of(mock(first_token_ms=60_000))) as running:
        client = running.connect()
        request = frame({"id": "a", "messages": HELLO})
        await client.say_bytes(request + frame({"op": "cancel", "id": "a"}) * copies)
        assert [a["type"] for a in await client.hear_until_end("a")] == ["done"]
        await client.say(op="status", id="s")
        assert (await client.hear())["id"] == "s"


async def test_a_cancel_never_swallows_an_end_that_waits_to_be_written(
    autojump_clock: MockClock,
) -> None:
    async with daemon(view_of(Scripted(flood))) as running:
        client = running.connect()
        await client.generate("flood")
        await trio.sleep(0.05)  # its socket is full: whatever ends now has to wait
        for number in range(40):
            await client.say_bytes(
                frame({"op": "status", "id": str(number)})
                + frame({"op": "cancel", "id": str(number)})
            )
        await client.say(op="cancel", id="flood")
        ends = Counter[str]()
        while sum(ends.values()) < 41:
            answer = await client.hear()
            ends[answer["id"]] += answer["type"] != "frame"
        assert set(ends.values()) == {1}


async def test_a_cancelled_v1_answer_says_what_there_was(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=5))) as running:
        client = running.connect()
        messages = [{"role": "user", "content": "hi"}]
        await client.say(id="a", api_version=1, messages=messages, max_tokens=10_000)
        first = await client.hear()
        await client.say(op="cancel", id="a")
        rest = await client.hear_until_end("a")
        tokens = first["content"] + "".join(a["content"] for a in rest[:-1])
        assert (rest[-1]["stop_reason"], rest[-1]["content"]) == ("cancelled", tokens)


async def test_cancel_while_it_waits_for_a_permit(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=5), active_permits=1)) as running:
        client = running.connect()
        await client.generate("runs", max_tokens=20)
        await client.generate("waits", max_tokens=1, stream=False)
        await client.generate("next", max_tokens=1)
        await client.say(op="cancel", id="waits")
        end = await client.hear_end("waits")
        assert (end["stop_reason"], end["backend"], end["content"]) == ("cancelled", "", "")
        assert (await client.hear_end("runs"))["stop_reason"] == "max_tokens"
        assert (await client.hear_end("next"))["stop_reason"] == "max_tokens"
        admission = running.view.router.find("r").gate.admission
        await eventually(lambda: admission.active == 0)


async def test_cancel_during_an_upload() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        picture = {"kind": "image", "id": "p", "width": 1, "height": 1}
        await client.generate("up", attachments=[picture])
        await client.say(op="cancel", id="up")
        end = await client.hear_end("up")
        assert (end["type"], end["stop_reason"], end["backend"]) == ("done", "cancelled", "")
        await client.say(type="attachment_blob", attachment_id="p", len=3)
        await client.say_bytes(pack(FrameType.BLOB, bytes(3)))
        await client.generate("next", max_tokens=2)
        assert (await client.hear_end("next"))["type"] == "done"


async def test_cancel_of_embeddings_is_an_error_frame(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=50), active_permits=1)) as running:
        client = running.connect()
        await client.generate("runs", max_tokens=100)
        await client.say(op="embed", id="e", input=["x"])
        await client.say(op="cancel", id="e")
        end = await client.hear_end("e")
        assert (end["type"], end["code"]) == ("error", "invalid_request")
        assert end["message"] == "cancelled by the caller"


async def test_cancel_frees_the_slot_of_a_client_that_does_not_read(
    autojump_clock: MockClock,
) -> None:
    backend = Scripted(flood)
    async with daemon(view_of(backend, active_permits=1)) as running:
        client = running.connect()
        await client.generate("a")
        await eventually(lambda: backend.running == 1)
        await trio.sleep(0.05)  # its socket is full by now
        await client.say(op="cancel", id="a")
        assert await eventually(lambda: backend.running == 0) < 1
        admission = running.view.router.find("r").gate.admission
        assert await eventually(lambda: admission.active == 0) < 1
        end = await client.hear_end("a")  # and no frame of what follows was cut
        assert end["stop_reason"] == "cancelled"


@pytest.mark.parametrize("script", [flood, silence])
async def test_a_client_that_leaves_cancels_its_requests_at_once(
    script: Callable[[], AsyncGenerator[Batch, None]], autojump_clock: MockClock
) -> None:
    backend = Scripted(script)
    async with daemon(view_of(backend)) as running:
        client = running.connect()
        for request_id in "abc":
            await client.generate(request_id)
        await eventually(lambda: backend.running == 3)
        client.leave()
        assert await eventually(lambda: backend.running == 0) < 1
        assert await eventually(lambda: not running.sessions) < 1


# -- ids -----------------------------------------------------------------------------------


async def test_an_id_in_flight_is_refused_and_the_first_request_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with daemon(view_of(mock(token_ms=2))) as running:
        client = running.connect()
        await client.generate("a", max_tokens=20)
        await client.hear()
        await client.generate("a", max_tokens=1)
        answers = [await client.hear()]
        while answers[-1]["type"] != "done":
            answers.append(await client.hear())
        (refusal,) = [a for a in answers if a["type"] == "error"]
        assert refusal["code"] == "invalid_request"
        assert "is in flight" in refusal["message"]
        assert answers[-1]["usage"]["output_tokens"] == 20


async def test_an_id_is_free_again_after_its_end(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        for _ in range(200):
            await client.generate("same", max_tokens=1)
            assert (await client.hear_end("same"))["type"] == "done"
        await eventually(lambda: not running.sessions[0].busy)


async def test_requests_in_a_row_without_ids() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        for _ in range(3):
            await client.say(messages=HELLO, max_tokens=1)
            assert (await client.hear_end(""))["type"] == "done"


# -- what breaks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [ValueError("PROMPT"), OSError(32, "PROMPT"), TimeoutError(), MemoryError()]
)
@pytest.mark.parametrize("after", [0, 1])
async def test_an_unforeseen_failure_ends_one_request_alone(
    failure: Exception, after: int, autojump_clock: MockClock
) -> None:
    first = True

    async def script() -> AsyncGenerator[Batch, None]:
        nonlocal first
        if not first:
            for _ in range(5):
                yield [TextDeltas(["ok"])]
                await trio.sleep(0.002)
            yield [END]
            return
        first = False
        for _ in range(after):
            yield [TextDeltas(["x"])]
        raise failure

    async with daemon(view_of(Scripted(script))) as running:
        client = running.connect()
        await client.say_bytes(
            frame({"id": "bad", "messages": HELLO}) + frame({"id": "good", "messages": HELLO})
        )
        answers = [await client.hear() for _ in range(after + 1 + 6)]
        (error,) = [a for a in answers if a["type"] == "error"]
        assert (error["code"], "PROMPT" in str(answers)) == ("internal", False)
        assert answers[-1]["type"] == "done"


async def test_a_backend_that_fails_in_mid_stream() -> None:
    async with daemon(view_of(mock(drop_after=2))) as running:
        client = running.connect()
        await client.generate("a")
        answers = await client.hear_until_end("a")
        assert [a["type"] for a in answers] == ["frame", "frame", "error"]
        assert answers[-1]["code"] == "backend_unavailable"
        assert answers[-1]["message"] == "backend mock dropped the stream after 2 tokens"


async def test_a_backend_that_stops_without_an_end() -> None:
    async def script() -> AsyncGenerator[Batch, None]:
        yield [TextDeltas(["x"])]

    async with daemon(view_of(Scripted(script))) as running:
        client = running.connect()
        await client.generate("a")
        assert (await client.hear_end("a"))["code"] == "backend_unavailable"


async def test_a_failure_after_the_end_says_nothing_more() -> None:
    async def script() -> AsyncGenerator[Batch, None]:
        yield [TextDeltas(["x"]), END]
        raise BackendFault("too late")

    async with daemon(view_of(Scripted(script))) as running:
        client = running.connect()
        await client.generate("a")
        assert (await client.hear_end("a"))["type"] == "done"
        await client.say(op="status", id="s")
        assert (await client.hear())["id"] == "s"


@pytest.mark.parametrize("stream", [True, False])
async def test_text_that_no_frame_can_carry_still_has_an_end(stream: bool) -> None:
    async def script() -> AsyncGenerator[Batch, None]:
        yield [TextDeltas(["\ud800"]), END]

    async with daemon(view_of(Scripted(script))) as running:
        client = running.connect()
        await client.generate("a", stream=stream)
        assert (await client.hear_end("a"))["code"] == "internal"
        await client.generate("a", stream=stream)  # the id was let go
        assert (await client.hear_end("a"))["code"] == "internal"


async def test_an_unstreamed_flood_neither_stalls_the_daemon_nor_grows_it(
    autojump_clock: MockClock,
) -> None:
    async with daemon(view_of(Scripted(flood))) as running:
        greedy, other = running.connect(), running.connect()
        await greedy.generate("a", stream=False)
        for number in range(5):
            await other.say(op="status", id=str(number))
            assert (await other.hear())["type"] == "result"
        end = await greedy.hear_end("a")
        assert end["code"] == "frame_too_large"
        assert str(MAX_WHOLE_TEXT_BYTES) in end["message"]


@pytest.mark.parametrize(
    ("data", "code", "closes"),
    [
        (pack(FrameType.JSON, b"{"), "wire_version_unsupported", True),
        (pack(FrameType.JSON, b'{"wire_version":2}'), "wire_version_unsupported", True),
        (frame({"op": "fly", "id": "x"}), "invalid_request", False),
        (frame({"id": "x", "messages": []}), "invalid_request", False),
        (frame({"id": "x", "messages": HELLO, "model": "none"}), "invalid_request", False),
        (b"\xff\xff\xff\xff\x7f\x01", "frame_too_large", True),
        (b"\xff\xff\xff\xff\xff\x01", "invalid_request", True),
        (b"\x01\x09", "invalid_request", True),
        (pack(FrameType.BLOB, b"x"), "invalid_request", True),
    ],
)
async def test_bad_input_is_one_error_frame(data: bytes, code: str, closes: bool) -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        await client.say_bytes(data)
        answer = await client.hear()
        if data == pack(FrameType.JSON, b"{"):
            assert answer["type"] == "error"
            return
        assert (answer["type"], answer["code"]) == ("error", code)
        if closes:
            await client.hear_close()
        else:
            await client.generate("ok", max_tokens=1)
            assert (await client.hear_end("ok"))["type"] == "done"


# -- admission, as a client sees it --------------------------------------------------------


async def test_a_full_queue_is_refused_at_once(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=50), active_permits=1, queue_depth=1)) as running:
        client = running.connect()
        for request_id in ("runs", "waits", "refused"):
            await client.generate(request_id, max_tokens=100)
        started = trio.current_time()
        end = await client.hear_end("refused")
        assert trio.current_time() - started < 2  # what runs takes 5 s
        assert end["code"] == "queue_full"
        assert end["message"].startswith("route r is full")


async def test_who_asks_for_it_is_told_its_place(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=5), active_permits=1)) as running:
        client = running.connect()
        await client.generate("runs", max_tokens=4)
        await client.generate("first", max_tokens=1, queue_events=True)
        await client.generate("second", max_tokens=1, queue_events=True)
        await client.generate("silent", max_tokens=1)
        heard: dict[str, list[object]] = {}
        while "done" not in heard.get("silent", []):
            answer = await client.hear()
            block = answer.get("block", {})
            is_place = block.get("type") == "queued"
            seen = block["position"] if is_place else answer["type"]
            heard.setdefault(answer["id"], []).append(seen)
        assert heard["first"] == [1, "frame", "done"]
        assert heard["second"] == [2, "frame", "done"]
        assert heard["silent"] == ["frame", "done"]


async def test_v1_has_no_frame_for_a_place_and_waits_without(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock(token_ms=5), active_permits=1)) as running:
        client = running.connect()
        await client.generate("runs", max_tokens=4)
        messages = [{"role": "user", "content": "hi"}]
        await client.say(id="v1", api_version=1, messages=messages, max_tokens=1, queue_events=True)
        assert [a["type"] for a in await client.hear_until_end("v1")] == ["token", "done"]


async def test_waiting_too_long_is_a_timeout(autojump_clock: MockClock) -> None:
    view = view_of(mock(token_ms=50), active_permits=1, max_wait_ms=20)
    async with daemon(view) as running:
        client = running.connect()
        await client.generate("runs", max_tokens=100)
        await client.generate("waits", max_tokens=1)
        end = await client.hear_end("waits")
        assert end["code"] == "timeout"
        assert end["message"].startswith("waited 0.02 s for route r")


# -- control streams -----------------------------------------------------------------------


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation `tick` that goes on for ever."""

    async def tick(_call: Call) -> AsyncGenerator[object, None]:
        for number in count():
            yield number
            await trio.sleep(0.002)

    monkeypatch.setitem(STREAMS, "tick", tick)


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("by", ["caller", "daemon"])
async def test_a_stream_goes_on_until_it_is_ended(by: str, autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        await client.say(op="tick", id="t")
        assert [(await client.hear())["value"] for _ in range(3)] == [0, 1, 2]
        if by == "caller":
            await client.say(op="cancel", id="t")
        else:
            running.sessions[0].end_streams()
        assert await client.hear_end("t") == {"type": "done", "id": "t"}


@pytest.mark.usefixtures("ticking")
async def test_a_stopping_daemon_begins_no_stream(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        running.view.draining = True
        await client.say(op="tick", id="t")
        assert (await client.hear())["code"] == "backend_unavailable"


# -- draining and stopping -----------------------------------------------------------------


async def test_a_draining_daemon_refuses_new_work_and_finishes_the_old(
    autojump_clock: MockClock,
) -> None:
    async with daemon(view_of(mock(token_ms=5))) as running:
        client = running.connect()
        await client.generate("old", max_tokens=10)
        await client.hear()
        running.view.draining = True
        await client.generate("new")
        await client.say(op="embed", id="embed", input=["x"])
        await client.say(op="status", id="status")
        ends = {}
        while "old" not in ends:
            answer = await client.hear()
            if answer["type"] != "frame":
                ends[answer["id"]] = answer
        assert ends["new"]["code"] == ends["embed"]["code"] == "backend_unavailable"
        assert ends["new"]["message"] == "the daemon is stopping and takes no new requests"
        assert ends["status"]["value"]["state"] == "draining"
        assert ends["old"]["stop_reason"] == "max_tokens"


async def test_the_end_of_the_daemon_is_said_once_to_each_request(
    autojump_clock: MockClock,
) -> None:
    async with daemon(view_of(mock(token_ms=5))) as running:
        client = running.connect()
        for request_id in "abc":
            await client.generate(request_id, max_tokens=10_000)
            await client.hear()
        session = running.sessions[0]
        session.end_requests("shutdown")
        session.end_requests("shutdown")
        ends: list[Answer] = []
        while len(ends) < 3:
            answer = await client.hear()
            ends += [answer] if answer["type"] != "frame" else []
        assert sorted(end["id"] for end in ends) == ["a", "b", "c"]
        assert {end["code"] for end in ends} == {"backend_unavailable"}
        assert {e["message"] for e in ends} == {"the daemon stopped before the answer was complete"}
        await eventually(lambda: not session.busy)


async def test_an_end_that_waits_behind_a_slow_reader_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    """Both are over when the daemon stops; neither frame may be dropped or said twice."""
    size = 300_000

    async def script() -> AsyncGenerator[Batch, None]:
        yield [TextDeltas(["x" * size])]
        yield [END]

    backend = Scripted(script)
    async with daemon(view_of(backend)) as running:
        client = running.connect()
        for request_id in "abcd":
            await client.generate(request_id)
        await trio.sleep(0.05)
        session = running.sessions[0]
        session.end_requests("shutdown")
        ends: list[str] = []
        while len(ends) < 4:
            answer = await client.hear()
            ends += [answer["id"]] if answer["type"] != "frame" else []
        assert sorted(ends) == list("abcd")
        await client.say(op="status", id="s")
        assert (await client.hear())["id"] == "s"


# -- readers -------------------------------------------------------------------------------


async def test_a_slow_reader_slows_its_own_backend_and_nobody_else(
    autojump_clock: MockClock,
) -> None:
    made = 0

    async def counted() -> AsyncGenerator[Batch, None]:
        nonlocal made
        while True:
            made += 1
            yield [TextDeltas(["x" * 1000] * 10)]

    backend = Scripted(counted)
    async with daemon(view_of(backend), write_timeout_s=0.3) as running:
        slow, quick = running.connect(), running.connect()
        await slow.generate("a")
        await eventually(lambda: backend.running == 1)
        await trio.sleep(0.05)
        before = made
        for number in range(20):
            await quick.say(op="status", id=str(number))
            await quick.hear()
        assert made == before  # nothing was produced that nobody takes
        assert made * 10_000 < 2_000_000  # and little was before
        assert await eventually(lambda: backend.running == 0) < 1
        await eventually(lambda: len(running.sessions) == 1)  # it was disconnected


async def test_a_reader_that_takes_a_little_is_kept(autojump_clock: MockClock) -> None:
    async with daemon(view_of(Scripted(flood)), write_timeout_s=0.1) as running:
        client = running.connect()
        await client.generate("a")
        for _ in range(10):
            await trio.sleep(0.05)
            await client.sock.recv(30_000)
        assert running.sessions


async def test_who_asks_on_without_reading_is_not_listened_to(autojump_clock: MockClock) -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        questions = 3000

        async def ask(conversation: Conversation) -> None:
            for number in range(questions):
                await conversation.say(op="status", id=str(number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            await trio.sleep(0.2)
            assert running.sessions[0]._tasks <= MAX_TASKS
            heard = {(await client.hear())["id"] for _ in range(questions)}
        assert len(heard) == questions


# -- the other operations ------------------------------------------------------------------


async def test_embeddings_and_rerank() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        await client.say(op="embed", id="e", input=["a", "b", "a"], dimensions=3)
        embeddings = await client.hear_end("e")
        assert embeddings["dimensions"] == 3
        assert [len(vector) for vector in embeddings["embeddings"]] == [3, 3, 3]
        assert embeddings["embeddings"][0] == embeddings["embeddings"][2]
        documents = ["no", "red", "red fox", "none", "red"]
        await client.say(op="rerank", id="r", query="red fox", documents=documents, top_n=3)
        ranking = await client.hear_end("r")
        assert [found["index"] for found in ranking["results"]] == [2, 1, 4]
        await client.say(op="rerank", id="r", query="red", documents=["x"], top_n=9)
        assert len((await client.hear_end("r"))["results"]) == 1


async def test_more_numbers_than_a_mock_makes() -> None:
    async with daemon(view_of(mock())) as running:
        client = running.connect()
        await client.say(op="embed", id="e", input=["x"], dimensions=2**31 - 1)
        assert (await client.hear_end("e"))["code"] == "invalid_request"


@pytest.mark.parametrize("at_once", [1, 3])
async def test_no_more_requests_begin_in_one_turn_than_running_ones_can_bear(
    nursery: trio.Nursery, at_once: int
) -> None:
    turn = 0
    began: Counter[int] = Counter()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    async def script() -> AsyncGenerator[Batch, None]:
        began[turn] += 1
        yield [END]

    view = view_of(Scripted(script), active_permits=100)
    async with daemon(view, starts_a_turn=at_once) as running:
        clients = [running.connect() for _ in range(12)]
        nursery.start_soon(count_turns)
        async with trio.open_nursery() as asking:
            for client in clients:
                asking.start_soon(client.generate, "1")
        for client in clients:
            assert (await client.hear_end("1"))["type"] == "done"
    assert sum(began.values()) == 12
    # who counts and who begins run in any order within a turn
    assert max(began[number] + began[number + 1] for number in began) <= 2 * at_once
