"""Streams that are passed on undecoded: nothing added, nothing lost, and no broken end for a good
one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.chat_completions import Redactor
from inferd_daemon.backends.chat_completions.chunks import ErrorDetail
from inferd_daemon.backends.event_relay import EventRelay, read_usage
from inferd_daemon.backends.sse import MAX_EVENT_BYTES
from inferd_proto import Usage

CHAT = "/v1/chat/completions"
KEY = "k3y-0123456789"
REDACT = Redactor([KEY])
RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.sse"))
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'
)


class Passed:
    """What a relay has made of a stream."""

    def __init__(self, path: str, *pieces: bytes, ended: bool = True) -> None:
        self.relay = EventRelay(path, REDACT)
        self.data = b""
        for piece in pieces:
            out = self.relay.feed(piece)
            # whoever adds something adds it at the beginning of a line
            assert out == b"" or out.endswith(b"\n")
            self.data += out
            if self.relay.complete or self.relay.error is not None:
                return
        if ended:
            self.data += self.relay.feed_eof()

    @property
    def verdict(self) -> str:
        """How the stream ended."""
        if self.relay.error is not None:
            return "failed"
        return "complete" if self.relay.complete else "broken off"


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_streams_go_through_unchanged(recording: Path) -> None:
    """As llama-server sent them."""
    stream = recording.read_bytes()
    passed = Passed(CHAT, stream)
    assert passed.verdict == "complete"
    assert passed.data == stream


@pytest.mark.parametrize(
    ("path", "stream"),
    [(CHAT, TEXT + FINISH + DONE), ("/v1/messages", MESSAGES), ("/v1/responses", RESPONSES)],
)
def test_each_api_ends_in_its_own_way(path: str, stream: bytes) -> None:
    """Complete with the last byte of its last event, and not before."""
    assert Passed(path, stream, ended=False).verdict == "complete"
    for cut in range(len(stream) - 1):
        assert Passed(path, stream[:cut], ended=False).verdict == "broken off"


@pytest.mark.parametrize(
    ("path", "stream"),
    [(CHAT, TEXT + FINISH + DONE), ("/v1/messages", MESSAGES), ("/v1/responses", RESPONSES)],
)
def test_a_byte_order_mark_costs_no_event(path: str, stream: bytes) -> None:
    marked = b"\xef\xbb\xbf" + stream
    for cut in range(6):
        passed = Passed(path, marked[:cut], marked[cut:])
        assert passed.verdict == "complete"
        assert passed.data == stream
        assert passed.relay.dropped == 0


@pytest.mark.parametrize("reason", ["completed", "incomplete", "failed"])
def test_responses_end_for_three_reasons(reason: str) -> None:
    """Each is an answer that the client understands."""
    stream = f"event: response.{reason}\ndata: {{}}\n\n".encode()
    assert Passed("/v1/responses", stream).verdict == "complete"


@pytest.mark.parametrize(
    "stream",
    [b"", TEXT, TEXT + b"data: {", b": comment\n\n", b"\n\n", b"data: [DON", b"data: x[DONE]\n\n"],
)
def test_an_end_without_a_reason_is_a_failure(stream: bytes) -> None:
    """Even where every event so far was whole."""
    assert Passed(CHAT, stream).verdict == "broken off"


@pytest.mark.parametrize(
    "stream", [MESSAGES.rpartition(b"event:")[0], MESSAGES[:-2].rpartition(b"\n")[0] + b"\n"]
)
def test_messages_without_a_stop_are_broken_off(stream: bytes) -> None:
    """Nor does the beginning of it do."""
    assert Passed("/v1/messages", stream).verdict == "broken off"


def test_a_missing_done_is_made_good() -> None:
    """Some servers say why the answer ended, and close."""
    passed = Passed(CHAT, TEXT, FINISH)
    assert passed.verdict == "complete"
    assert passed.data == TEXT + FINISH + DONE
    spaced = FINISH.replace(b":", b": ").replace(b"data: ", b"data:")
    assert Passed(CHAT, TEXT, spaced.rstrip(b"\n")).data.endswith(b"\n\ndata: [DONE]\n\n")


def test_line_ends_of_other_systems() -> None:
    """CR LF is as good."""
    stream = (TEXT + FINISH + DONE).replace(b"\n", b"\r\n")
    passed = Passed(CHAT, stream, ended=False)
    assert passed.verdict == "complete"
    assert passed.data == stream


def test_began_with_the_first_event() -> None:
    """Comments are no sign of an answer."""
    relay = EventRelay(CHAT, REDACT)
    relay.feed(b": ping\n\n")
    assert not relay.began
    relay.feed(TEXT)
    assert relay.began


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (
            b'data: {"error":{"message":"no memory","type":"server_error","code":500}}\n\n',
            ErrorDetail("no memory", "server_error", 500),
        ),
        (b'data: {"error": "no memory"}\n\n', "no memory"),
        (
            b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n',
            ErrorDetail("x", "api_error"),
        ),
        (b'event: error\ndata: {"type":"error","message":"x"}\n\n', "x"),
        (b'data: {"type":"error","error":{"message":"x"}}\n\n', ErrorDetail("x")),
        (b'data: {"id":"1","choices":[],"error":{"message":"x"}}\n\n', ErrorDetail("x")),
        (b'data:{"error":"x"}\n\n', "x"),
        (b'data: {  "error" : "x" }\r\n\r\n', "x"),
        (b'data: {"message":"x"}\n\n', "x"),
        (b'event:error\ndata:{"message":"x"}\n\n', "x"),
        (b'data: {"error":{"mess', ""),
        (b'data: {"id":"1","error":{"message":"\xff"}}\n\n', ""),
        (b"event: error\n", ""),
    ],
)
def test_an_error_is_taken_out(event: bytes, error: object) -> None:
    """It is told in our own words; what came before it goes through."""
    path = "/v1/messages" if event.startswith(b'data: {"type"') else CHAT
    for pieces in ((TEXT + event,), (TEXT, event), (TEXT + event[:9], event[9:])):
        passed = Passed(path, *pieces)
        assert passed.verdict == "failed"
        assert passed.relay.error == error
        assert passed.data == TEXT


def test_an_error_within_a_text_is_text() -> None:
    """Only what begins a line counts: JSON holds no line ends."""
    quoting = (
        b'data: {"choices":[{"delta":{"content":"\\ndata: {\\"error\\" [DONE] event: error"}}]}\n\n'
    )
    passed = Passed(CHAT, quoting, FINISH + DONE)
    assert passed.verdict == "complete"
    assert passed.data == quoting + FINISH + DONE


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"<p>no</p>\r\n",
        b"data: {oh\n",
        b"data: {not json}\n",
        b"data: []\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n',
        b'data: {"a":1} {"b":2}\n',
    ],
)
def test_malformed_lines_are_dropped_and_counted(line: bytes) -> None:
    """Whatever stands around them, and however they come."""
    for pieces in ((TEXT + line + TEXT,), (TEXT, line, TEXT), (TEXT + line[:9], line[9:] + TEXT)):
        passed = Passed(CHAT, *pieces, FINISH + DONE)
        assert passed.verdict == "complete"
        assert passed.relay.dropped == 1
        assert passed.data == TEXT + TEXT + FINISH + DONE


@pytest.mark.parametrize(
    "lines",
    [
        b": comment\n\n",
        b"id: 1\nretry: 5\n",
        b"event: message\n",
        b"\n\n\n",
        b'data: {"error":null,"choices":[]}\n\n',
        'data: {"choices":[{"delta":{"content":"ü"}}]}\n\n'.encode(),
        TEXT.replace(b"data: ", b"data:"),
        TEXT.replace(b"\n", b"\r"),
        b'data: {"choices":[{"delta":{"content":"error"}}]}\n\n',
    ],
)
def test_what_is_unusual_but_allowed_goes_through(lines: bytes) -> None:
    """Unchanged, and not counted."""
    passed = Passed(CHAT, TEXT + lines + TEXT + FINISH + DONE)
    assert passed.verdict == "complete"
    assert passed.relay.dropped == 0
    assert passed.data == TEXT + lines + TEXT + FINISH + DONE


def test_done_without_a_space() -> None:
    """It is no worse."""
    stream = (TEXT + FINISH + DONE).replace(b"data: ", b"data:")
    passed = Passed(CHAT, stream, ended=False)
    assert passed.verdict == "complete"
    assert passed.data == stream


@pytest.mark.parametrize(
    "told", [KEY, "".join(f"\\u{ord(c):04x}" for c in KEY), KEY[:6] + "\\n" + KEY[6:]]
)
def test_what_a_failed_response_quotes_is_redacted(told: str) -> None:
    """It is an answer that the client understands; the secret in it is not for him."""
    stream = (
        b'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed",'
        b'"error":{"message":"bad key \\"' + told.encode() + b'\\"\\n"}}}\n\n'
    )
    passed = Passed("/v1/responses", stream)
    assert passed.verdict == "complete"
    assert passed.data == stream.replace(told.encode(), b"***")


def test_an_endless_line_is_an_error() -> None:
    """Nothing of it is passed on, and it is not held either."""
    piece = b"x" * 65_536
    passed = Passed(CHAT, TEXT, b"data: ", *[piece] * (MAX_EVENT_BYTES // len(piece) + 1))
    assert passed.verdict == "failed"
    assert passed.data == TEXT


@given(st.data())
def test_splits_change_nothing(data: st.DataObject) -> None:
    """At any byte, anywhere, as often as you like."""
    path, stream = data.draw(
        st.sampled_from(
            [
                (CHAT, TEXT + b": ping\n\n" + TEXT + FINISH + DONE),
                (CHAT, TEXT + FINISH),
                (CHAT, TEXT + b'data: {"error":{"message":"x"}}\n\n'),
                (CHAT, TEXT + b'data: {"id":"1","error":"x"}\n\n' + TEXT),
                (CHAT, TEXT + b"oh\ndata: {\n\n" + TEXT.replace(b": {", b":{") + FINISH + DONE),
                (CHAT, TEXT + b"data: {"),
                ("/v1/messages", MESSAGES),
                ("/v1/responses", RESPONSES.replace(b"\n", b"\r\n")),
            ]
        )
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    split, together = Passed(path, *pieces), Passed(path, stream)
    assert split.verdict == together.verdict
    assert split.relay.error == together.relay.error
    if together.verdict == "complete":
        assert split.data == together.data
    else:
        assert together.data.startswith(split.data[: len(together.data)])


@pytest.mark.parametrize(
    ("figures", "usage"),
    [
        (b'"cache_read_input_tokens":25,"input_tokens":1,"output_tokens":3', (26, 3)),
        (b'"input_tokens":1,"cache_creation_input_tokens":4,"output_tokens":3', (5, 3)),
        (b'"input_tokens":9,"input_tokens_details":{"cached_tokens":7},"output_tokens":3', (9, 3)),
        (b'"prompt_tokens":9,"cache_read_input_tokens":7,"completion_tokens":3', (9, 3)),
    ],
)
def test_what_a_cache_saved_was_asked_too(figures: bytes, usage: tuple[int, int]) -> None:
    """Anthropic leaves it out of `input_tokens`, OpenAI does not."""
    assert read_usage(b'{"usage":{%b}}' % figures) == Usage(*usage)
