"""What the daemon's log says, and what it must never say."""

from pathlib import Path

from tests.support.daemon import running_daemon, wait_until
from tests.support.wire_client import connected

MARK = "xyzzy-the-prompt"
ANSWER = "tok7 "  # no name of a temporary directory holds a space

CONFIG = """\
[daemon]
log_format = "{format}"
log_level = "debug"
[backends.good]
kind = "mock"
[backends.bad]
kind = "mock"
drop_after = 2
[routes.good]
backends = ["good"]
[routes.bad]
backends = ["bad"]
"""


def say_everything(path: Path) -> None:
    """The mark in every place where a client may write, each request answered."""
    content = [{"type": "text", "text": MARK}]
    messages = [{"role": "user", "content": content}]
    tool = {"name": MARK, "description": MARK, "input_schema": {"title": MARK}}
    with connected(path) as client:
        asked: list[dict[str, object]] = [
            {"messages": messages, "max_tokens": 9, "model": "good", "stop": [MARK]},
            {"messages": messages, "model": "bad"},
            {"messages": messages, "model": "good", "tools": [tool], "tool_choice": "required"},
            {
                "api_version": 1,
                "messages": [{"role": "user", "content": MARK}],
                "model": "good",
                "grammar": MARK,
            },
            {"op": "embed", "input": [MARK], "model": "good"},
            {"op": "rerank", "query": MARK, "documents": [MARK], "model": "good"},
            {"messages": messages, "temperature": MARK},
            {"messages": MARK},
            {"messages": [{"role": MARK, "content": content}]},
            {"messages": [{"role": "user", "content": [{"type": MARK}]}]},
            {"op": "status", "argument": MARK},
        ]
        for number, fields in enumerate(asked):
            client.say(id=f"request-{number}", **fields)
            client.hear_end(f"request-{number}")


def test_lines_are_json_with_ids_and_without_prompts() -> None:
    with running_daemon(config=CONFIG.format(format="json")) as daemon:
        say_everything(daemon.socket)
        wait_until(lambda: "request-10" in daemon.log, 2, "the last request's line")
        daemon.stop()
        lines = daemon.log_lines()
        assert MARK not in daemon.log
        assert ANSWER not in daemon.log
        requests = [line for line in lines if line["event"] == "request"]
        assert [line["id"] for line in requests] == [f"request-{n}" for n in (0, 1, 2, 3, 4, 5, 10)]
        assert [line["outcome"] for line in requests][:2] == ["done", "backend_unavailable"]
        for line in lines:
            assert {"event", "level", "timestamp"} <= line.keys()


def test_lines_for_people_hold_no_prompt_and_no_escape_of_a_client() -> None:
    with running_daemon(config=CONFIG.format(format="human")) as daemon:
        say_everything(daemon.socket)
        with connected(daemon.socket) as client:
            client.generate("\x1b[2J\n\x07evil", model="good", max_tokens=1)
            client.hear_end("\x1b[2J\n\x07evil")
        daemon.stop()
        assert MARK not in daemon.log
        assert "\\x1b[2J" in daemon.log
        assert "\x1b" not in daemon.log
        assert "\x07" not in daemon.log
