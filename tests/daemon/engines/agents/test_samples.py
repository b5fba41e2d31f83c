"""What real CLIs wrote, read whole, byte by byte and in random pieces: always the same."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import Finished
from inferd_daemon.engines.agents.dialogue import Failed
from inferd_proto import Usage

from .reading import SAMPLES, Reading, dialogue, read

HELLO = ("Hel", "lo ", "from ", "fake ", "✓ upstream.")
CUT = ("Hel", "lo ")
END = Finished("end_turn", Usage(11, 5))
CLAUDE_END = Finished("end_turn", Usage(14, 5))
WORDS = tuple(f"w{i} " for i in range(15))
LOST = "it ended with exit code 0 before its answer did"

EXPECTED = {
    "claude-ok": Reading(HELLO, "", CLAUDE_END),
    "claude-recommended": Reading(HELLO, "", CLAUDE_END),
    "claude-think": Reading(HELLO, "Let me think.", CLAUDE_END),
    "claude-tool": Reading(HELLO, "", Finished("end_turn", Usage(28, 10))),
    # It went on three times after this.
    "claude-maxtok": Reading(HELLO, "", Finished("max_tokens", Usage(14, 5))),
    "claude-drop": Reading(
        CUT,
        "",
        Failed(
            "API Error: Connection to the API was lost (ECONNRESET). This is usually temporary — "
            "try again."
        ),
    ),
    "claude-drop-nonstreaming-fallback": Reading(CUT, "", Finished("end_turn", Usage(0, 0))),
    "claude-errmid": Reading(CUT, "", Failed("API Error: fake mid-stream overload")),
    "claude-sigint": Reading(WORDS, "", Failed("error_during_execution")),
    "claude-sigterm": Reading(WORDS, "", Failed(LOST)),
    "claude-noauth": Reading((), "", Failed("Not logged in · Please run /login", 401)),
    "claude-e401": Reading((), "", Failed("Not logged in · Please run /login", 401)),
    "codex-ok": Reading(HELLO, "", END),
    "codex-think": Reading(HELLO, "Let me think.", END),
    "codex-maxtok": Reading(HELLO, "", Finished("max_tokens", Usage(11, 5))),
    "codex-interrupt": Reading(("w0 ",), "", Failed("its turn ended as 'interrupted'")),
    "codex-e404": Reading((), "", Failed("model: no-such-model", 404)),
    "gemini-ok": Reading(HELLO, "", END),
    "gemini-think": Reading(HELLO, "", END),
    # It does not tell.
    "gemini-maxtok": Reading(HELLO, "", END),
    "gemini-errmid": Reading(CUT, "", Failed("Model stream ended without a finish reason.")),
    "gemini-drop": Reading(CUT, "", Failed("[API Error: terminated]")),
    "gemini-sigint": Reading(WORDS[:14], "", Failed(LOST)),
    "gemini-sigterm": Reading(WORDS, "", Failed(LOST)),
    "gemini-e404": Reading((), "", Failed("[API Error: model: no-such-model]")),
    "amp-made-ok": Reading(
        ("Hello from fake ✓ upstream.",), "", Finished("end_turn", Usage(0, 0), counted=False)
    ),
    "amp-made-error": Reading((), "", Failed("Insufficient credit balance")),
    "amp-noauth": Reading((), "", Failed("it wrote a line of 40 bytes that is no event")),
}
STATUSES = {
    "claude-e400": 400,
    "claude-e404": 404,
    "claude-e429": 429,
    "claude-e500": 500,
    "claude-unreach": None,
    "codex-drop": None,
    "codex-errmid": None,
    "codex-e401": 401,
    "codex-e429": 429,
    "codex-e500": 500,
    "gemini-e400": 400,
    "gemini-e401": 401,
    "gemini-e429": 429,
    "gemini-e500": 500,
    "gemini-tool": None,
    "gemini-unreach": None,
}
ALL = sorted(path.stem for path in SAMPLES.glob("*.jsonl"))


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.jsonl").read_bytes()


def whole(name: str) -> Reading:
    return read(dialogue(name.split("-")[0]), [sample(name)])


def test_every_sample_is_expected_something_of() -> None:
    assert sorted({*EXPECTED, *STATUSES}) == ALL


@pytest.mark.parametrize("name", EXPECTED)
def test_a_sample_says_what_it_said(name: str) -> None:
    assert whole(name) == EXPECTED[name]


@pytest.mark.parametrize("name", STATUSES)
def test_a_refusal_has_the_status_that_the_cli_tells(name: str) -> None:
    end = whole(name).end
    assert isinstance(end, Failed)
    assert end.status == STATUSES[name]
    assert end.message


@pytest.mark.parametrize("name", ALL)
def test_byte_by_byte_it_says_the_same(name: str) -> None:
    data = sample(name)
    pieces = (data[i : i + 1] for i in range(len(data)))
    assert read(dialogue(name.split("-")[0]), pieces) == whole(name)


@given(st.sampled_from(ALL), st.lists(st.floats(0, 1), max_size=12))
def test_in_any_pieces_it_says_the_same(name: str, cuts: list[float]) -> None:
    data = sample(name)
    at = [0, *sorted(round(cut * len(data)) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(at)]
    assert read(dialogue(name.split("-")[0]), pieces) == whole(name)


@given(st.data())
def test_cut_anywhere_it_is_over_all_the_same(data: st.DataObject) -> None:
    """A process that dies in the middle: what was whole counts, and it is no success."""
    name = data.draw(st.sampled_from(ALL))
    content = sample(name)
    size = data.draw(st.integers(0, len(content) - 1))
    reading = read(dialogue(name.split("-")[0]), [content[:size]], returncode=0)
    full = whole(name)
    assert reading.text == full.text[: len(reading.text)]
    assert reading.end == full.end or isinstance(reading.end, Failed)
    if reading.end != full.end and not content[:size].endswith(b"\n") and size:
        assert isinstance(reading.end, Failed)
        assert reading.end.message.endswith("in the middle of a line")
