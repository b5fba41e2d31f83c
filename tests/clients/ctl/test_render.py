"""Data to text: what a reader sees, and what a terminal must not be told."""

import json

import pytest

from inferd_client import Done, Queued, TextDelta, ThinkingDelta, ToolUse, Usage
from inferd_client.ctl.figures import Stopwatch
from inferd_client.ctl.render import (
    duration,
    event_json,
    printable,
    routes_table,
    status_line,
    tool_call,
)
from inferd_client.status import to_routes, to_status
from tests.clients.scripted_daemon import ROUTES, STATUS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0123, "12.3 ms"),
        (1.2345, "1.23 s"),
        (59.0, "59 s"),
        (75, "1 min 15 s"),
        (3 * 3600 + 125, "3 h 2 min"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_model_has_no_power_over_the_terminal() -> None:
    assert printable("a\tb\nc é 漢 🙂") == "a\tb\nc é 漢 🙂"
    evil = printable("\x1b]0;title\x07 \x1b[2J \x9b31m \r\x08")
    assert not set(evil) & {"\x1b", "\x07", "\x9b", "\r", "\x08"}
    assert "\x1b" not in tool_call("rm\x1b[0m", {"a": "\x1b[2J"})


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (TextDelta("hé"), {"type": "text", "delta": "hé"}),
        (ThinkingDelta("hm"), {"type": "thinking", "delta": "hm"}),
        (Queued(2, 150), {"type": "queued", "position": 2, "estimate_ms": 150}),
        (
            ToolUse("c1", "f", {"x": 1}),
            {"type": "tool_use", "tool_call_id": "c1", "name": "f", "input": {"x": 1}},
        ),
        (
            Done("end_turn", Usage(1, 2), "b"),
            {
                "type": "done",
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 1, "output_tokens": 2},
                "backend": "b",
                "tool_choice_unsatisfied": False,
            },
        ),
    ],
)
def test_events_as_json(event: object, fields: object) -> None:
    line = event_json(event)  # type: ignore[arg-type]
    assert json.loads(line) == fields
    assert "\n" not in line


def test_the_status_in_a_line() -> None:
    assert status_line(to_status(STATUS)) == (
        "inferd 0.1.0 is ready: pid 4242, up 1 min 15 s, 1 connection, /run/inferd/inferd.sock"
    )


def test_routes_in_a_table() -> None:
    table = routes_table(to_routes({"routes": [*ROUTES, {"name": "[red]x", "ready": True}]}))
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns == {
        "NAME": ["demo*", "big", "[red]x"],
        "STATE": ["ready", "unready", "ready"],
        "ACTIVE": ["1/4", "0/0", "0/0"],
        "QUEUED": ["0/10", "0/0", "0/0"],
        "BACKENDS": ["demo (libllama)", "", ""],
        "ALIASES": ["gpt", "", ""],
    }


def test_figures_of_a_streamed_answer() -> None:
    watch = Stopwatch(100.0)
    watch.saw(Queued(1), 100.1)
    for at in (100.5, 101.0, 102.5):
        watch.saw(TextDelta("x"), at)
    done = Done("end_turn", Usage(1, 9))
    watch.saw(done, 102.5)
    figures = watch.measure(done)
    assert tuple(figures) == (0.5, 2.5, 9, 4.0)
    assert figures.in_words() == "first token after 500 ms, 9 tokens in 2.5 s, 4.0 tokens/s"


def test_a_burst_is_measured_by_the_whole_time() -> None:
    watch = Stopwatch(0.0)
    done = Done("end_turn", Usage(1, 81))
    for step in range(81):
        watch.saw(TextDelta("x"), 0.0698 + step * 0.0000037)
    watch.saw(done, 0.0701)
    assert watch.measure(done).tokens_per_s == pytest.approx(81 / 0.0701)


def test_a_call_is_measured_by_the_whole_time() -> None:
    watch = Stopwatch(0.0)
    done = Done("tool_use", Usage(1, 26))
    watch.saw(ToolUse("c", "f", {}), 0.5)
    watch.saw(done, 0.5)
    figures = watch.measure(done)
    assert figures.in_words() == "first token after 500 ms, 26 tokens in 500 ms, 52 tokens/s"
    assert figures.as_fields()["tokens_per_s"] == 52.0


def test_no_tokens_have_no_rate() -> None:
    watch = Stopwatch(0.0)
    done = Done("cancelled", Usage(1, 0))
    watch.saw(done, 0.5)
    figures = watch.measure(done)
    assert figures.in_words() == "0 tokens in 500 ms"
    assert figures.as_fields()["tokens_per_s"] is None


def test_tokens_that_nobody_counted_are_not_told_as_none() -> None:
    watch = Stopwatch(0.0)
    done = Done("end_turn", Usage(0, 0), counted=False)
    for at in (0.5, 2.0):
        watch.saw(TextDelta("x"), at)
    watch.saw(done, 2.5)
    figures = watch.measure(done)
    assert figures.in_words() == "first token after 500 ms, all in 2.5 s, tokens not counted"
    assert figures.as_fields()["tokens"] is None
