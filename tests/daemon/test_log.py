"""Log lines: for machines and for people, and never more than they may hold."""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from inferd_daemon.config.schema import LogFormat
from inferd_daemon.log import configure, describe_exception

SECRET = "what the prompt said"


@pytest.fixture(autouse=True)
def _structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def logger() -> Any:  # noqa: ANN401  a bound logger has no type of its own
    return structlog.get_logger("test")


def fail() -> None:
    local = SECRET
    try:
        raise KeyError(local)
    except KeyError as error:
        raise ExceptionGroup(SECRET, [ValueError(SECRET), OSError(2, SECRET)]) from error


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    logger().info("hello", id="a\nb", count=3)
    logger().debug("not this")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "hello", "id": "a\nb", "count": 3, "level": "info"}


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_levels(capsys: pytest.CaptureFixture[str], level: Any) -> None:  # noqa: ANN401  a literal
    configure("json", level)
    for each in ("debug", "info", "warning", "error"):
        getattr(logger(), each)(each)
    seen = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert seen == ["debug", "info", "warning", "error"][-len(seen) :]
    assert seen[0] == level


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_an_exception_shows_its_way_and_not_its_words(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure(log_format, "info")
    try:
        fail()
    except ExceptionGroup:
        logger().exception("failed", id="r1")
    text = capsys.readouterr().err
    assert SECRET not in text
    for shown in ("KeyError", "which led to", "ExceptionGroup", "ValueError", "test_log.py", "r1"):
        assert shown in text


def test_describe_exception_says_where() -> None:
    try:
        fail()
    except ExceptionGroup as error:
        lines = describe_exception((type(error), error, error.__traceback__)).splitlines()
    assert lines[0].endswith(" in fail")
    assert lines[1:3] == ["builtins.KeyError", "which led to:"]
    assert lines[3].endswith(" in test_describe_exception_says_where")
    assert lines[-3:] == [
        "builtins.ExceptionGroup",
        "  builtins.ValueError",
        "  builtins.FileNotFoundError",
    ]


def test_people_see_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    configure("human", "info")
    logger().info("hello", id="\x1b[2J\r\nx", other="fine ä")
    text = capsys.readouterr().err
    assert "\x1b" not in text.strip("\n")
    assert "\\x1b[2J\\r\\nx" in text
    assert "fine ä" in text


def test_a_name_that_is_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    logger().info("hello", path="/x/\udcff")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["path"]) == ("hello", "/x/\\udcff")


class Broken(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_a_line_that_nobody_takes_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken())
    configure("json", "info")
    logger().info("hello")
