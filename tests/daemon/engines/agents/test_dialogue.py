"""What a CLI may write that no CLI should: always one typed end, never an exception or a wait."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import Finished, TextDeltas
from inferd_daemon.engines.agents.claude import ClaudeDialogue
from inferd_daemon.engines.agents.dialogue import Failed
from inferd_daemon.engines.agents.lines import MAX_LINE_BYTES, Lines, OverlongLine
from inferd_daemon.engines.agents.registry import PROFILES

from .reading import SAMPLES, dialogue, read

PROVIDERS = list(PROFILES)
GARBAGE = [
    b"Traceback (most recent call last):\n",
    b"{\n",
    b"[1,2]\n",
    b'"text"\n',
    b"\xff\xfe\x00\n",
    b'{"type": 3}\n{"method": 4}\n',
    b'{"type":"result","stats":"none","usage":"none"}\n{"id":1,"result":3,"error":[]}\n',
    b"[" * 100_000 + b"\n",
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_typed_end(provider: str, garbage: bytes) -> None:
    talk = dialogue(provider)
    reading = read(talk, [garbage])
    assert isinstance(reading.end, Failed)
    assert talk.over


def test_garbage_is_not_quoted() -> None:
    talk = dialogue("claude")
    (failed,) = talk.feed(b"my secret prompt\n")
    assert failed == Failed("it wrote a line of 16 bytes that is no event")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_unknown_is_ignored(provider: str) -> None:
    unknown = [{"type": "novelty", "event": 1, "result": {}}, {}, {"method": "x/y", "params": 3}]
    unknown += [{"type": "system", "subtype": "other"}, {"type": "stream_event", "event": {}}]
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in unknown)
    talk = dialogue(provider)
    assert talk.feed(lines + b"\n  \r\n") == []
    assert not talk.over


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_exit_of_zero_is_no_success(provider: str) -> None:
    assert isinstance(read(dialogue(provider), [], returncode=0).end, Failed)


def test_the_end_of_stderr_says_why() -> None:
    reading = read(dialogue("codex"), [b'{"id"'], returncode=1, stderr="noise\nbad config\n\n")
    assert reading.end == Failed(
        "it ended with exit code 1 before its answer did, in the middle of a line: bad config"
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_line_without_end_is_bounded(provider: str) -> None:
    talk = dialogue(provider)
    piece = b"x" * (1 << 20)
    for _ in range(MAX_LINE_BYTES // len(piece)):
        assert talk.feed(piece) == []
    (failed,) = talk.feed(piece)
    assert failed == Failed(f"it wrote a line of more than {MAX_LINE_BYTES} bytes")
    assert talk.feed(piece) == []


def fed(pieces: list[bytes], seen: list[bytes]) -> None:
    lines = Lines(10)
    for piece in pieces:
        for line in lines.feed(piece):
            seen.append(line)  # noqa: PERF402 (kept where the next one raises)


def test_what_stands_before_an_overlong_line_counts() -> None:
    data = b"a\nb\n" + b"c" * 11 + b"\nd\n"
    for cut in range(len(data)):
        seen: list[bytes] = []
        with pytest.raises(OverlongLine):
            fed([data[:cut], data[cut:]], seen)
        assert seen == [b"a", b"b"]


def test_nothing_comes_after_the_end() -> None:
    data = (SAMPLES / "claude-ok.jsonl").read_bytes()
    talk = dialogue("claude")
    events = talk.feed(data + data)
    assert [type(event) for event in events] == [TextDeltas] * 5 + [Finished]
    assert talk.feed(data) == []
    assert talk.end(1, "") == []


@given(st.sampled_from(PROVIDERS), st.binary(max_size=200), st.integers(0, 8000))
def test_bytes_put_anywhere_break_nothing(provider: str, junk: bytes, at: int) -> None:
    data = next(SAMPLES.glob(f"{provider}-*ok.jsonl")).read_bytes()
    read(dialogue(provider), [data[:at], junk, data[at:]])


def test_an_answer_without_the_model_is_none() -> None:
    result = b'{"type":"result","is_error":false,"result":"Unknown command: /x"}\n'
    reading = read(ClaudeDialogue(b""), [result])
    assert reading.end == Failed("it answered by itself, without asking the model")
