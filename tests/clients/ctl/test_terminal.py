"""On a real terminal (a pty): colour, dim thinking, harmless text, a conversation, Ctrl-C."""

import codecs
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from inferd_proto import BlockAnswer, Control, GenerateV2, Text, TextDelta, ThinkingDelta
from tests.clients.scripted_daemon import Asked, ScriptedDaemon, friendly

PATIENCE_S = 60.0
_ON_THIS_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C typed there reaches the process
from inferd_client.ctl.main import main
main()
"""


class Screen:
    """The far end of the terminal."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self.fd, self.process, self.seen = fd, process, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in a character

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str, count: int = 1) -> str:
        """Read until `text` was seen `count` times."""
        deadline = time.monotonic() + PATIENCE_S
        while self.seen.count(text) < count:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.fd], [], [], max(left, 0))
            assert ready, f"{text!r} did not come: {self.seen!r}"
            try:
                self.seen += self._decoder.decode(os.read(self.fd, 4096))
            except OSError:
                break
        assert self.seen.count(text) >= count, self.seen
        return self.seen

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)


@contextmanager
def _screen(daemon: ScriptedDaemon, *argv: str, **environ: str) -> Iterator[Screen]:
    near, far = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"INFERD_SOCKET": str(daemon.path), "TERM": "xterm", **environ}
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_THIS_TERMINAL, *argv],
        stdin=far,
        stdout=far,
        stderr=far,
        env=environment,
        start_new_session=True,
    )
    os.close(far)
    try:
        yield Screen(near, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
        os.close(near)


def _thinker(asked: Asked) -> None:
    if isinstance(asked.request, Control):
        friendly(asked)
        return
    asked.send(BlockAnswer(asked.id, ThinkingDelta("hm\n")))
    asked.text("plain \x1b[2J\x07 text")
    asked.done(2)


def test_thinking_is_dim_and_text_is_harmless(daemon: ScriptedDaemon) -> None:
    daemon.script = _thinker
    with _screen(daemon, "run", "Hi") as screen:
        seen = screen.until("text")
        assert screen.end() == 0
    assert "\x1b[2mhm" in seen
    assert "plain \ufffd[2J\ufffd text" in seen


def test_no_color_is_heeded(daemon: ScriptedDaemon) -> None:
    daemon.script = _thinker
    with _screen(daemon, "run", "Hi", NO_COLOR="1") as screen:
        seen = screen.until("text")
        assert screen.end() == 0
    assert "\x1b" not in seen
    assert "hm" in seen


def test_tables_are_coloured_or_not_but_whole(daemon: ScriptedDaemon) -> None:
    with _screen(daemon, "routes") as screen:
        assert "demo*" in screen.until("big")
        assert screen.end() == 0


def test_a_conversation_remembers_and_ends(daemon: ScriptedDaemon) -> None:
    with _screen(daemon, "run", "demo") as screen:
        screen.until(">>> ")
        screen.type("first\n")
        screen.until("inferd.")
        screen.until(">>> ", 2)
        screen.type("\n")
        screen.until(">>> ", 3)
        screen.type("second\n")
        screen.until("inferd.", 2)
        screen.until(">>> ", 4)
        screen.type("\x04")
        assert screen.end() == 0
    last = daemon.asked[-1].request
    assert isinstance(last, GenerateV2)
    said = [(m.role, m.content) for m in last.messages]
    assert said == [
        ("user", [Text("first")]),
        ("assistant", [Text("Hello from inferd.")]),
        ("user", [Text("second")]),
    ]


def test_ctrl_c_ends_an_answer_and_not_the_conversation(daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if isinstance(asked.request, GenerateV2) and asked.request.messages[-1].content == [
            Text("long")
        ]:
            asked.send(BlockAnswer(asked.id, TextDelta("one")))
            asked.await_cancel()
        else:
            friendly(asked)

    daemon.script = script
    with _screen(daemon, "run", "demo") as screen:
        screen.until(">>> ")
        screen.type("long\n")
        screen.until("one")
        screen.type("\x03")
        screen.until("(cancelled)")
        screen.until(">>> ", 2)
        screen.type("short\n")
        screen.until("inferd.")
        screen.until(">>> ", 3)
        screen.type("\x04")
        assert screen.end() == 0


def test_ctrl_c_at_the_prompt_leaves(daemon: ScriptedDaemon) -> None:
    with _screen(daemon, "run", "demo") as screen:
        screen.until(">>> ")
        deadline = time.monotonic() + PATIENCE_S
        # Between its prompt and its wait Python's readline notices a signal at the next key only.
        while screen.process.poll() is None and time.monotonic() < deadline:
            screen.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                screen.process.wait(1)
        assert screen.end() == 130
