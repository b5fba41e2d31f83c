"""From words on the command line to a question, and from a question to an answer on the screen."""

import os
import stat
import sys
import time
from typing import NamedTuple

import click

from inferd_proto import Queued, TextDelta, ThinkingDelta, ToolUse

from ..answers import Completion, Done
from ..blocking import Client
from ..content import Prompt, Turn, assistant, user
from ..errors import RequestFailed
from ..requests import GenerateOptions
from . import exits
from .failure import in_one_line
from .figures import Stopwatch
from .render import event_json, json_line, tool_call
from .terminal import Terminal


class Question(NamedTuple):
    """What to ask of which route (None: the default); without a text: a conversation."""

    model: str | None
    text: str | None


def find_question(client: Client, first: str | None, second: str | None) -> Question:
    """What the arguments and standard input mean. Raises UsageError where they mean nothing."""
    model, prompt = first, second
    if first is not None and second is None and not _is_route(client, first):
        model, prompt = None, first
    piped = piped_text()
    text = "\n\n".join(part for part in (prompt, piped) if part)
    if text:
        return Question(model, text)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return Question(model, None)
    raise click.UsageError("there is no prompt: give one, or pipe one in")


def print_answer(
    client: Client, prompt: Prompt, options: GenerateOptions, *, json_: bool, verbose: bool
) -> int:
    """Stream one answer; returns the exit code."""
    terminal = Terminal()
    try:
        answer, watch = _stream(client, prompt, options, terminal, json_=json_)
    except RequestFailed as error:
        if json_:
            fields = {"type": "error", "code": error.code.value, "message": error.message}
            terminal.line(json_line(fields))
        terminal.end_line()
        raise
    except BaseException:
        terminal.end_line()
        raise
    terminal.end_line()
    if answer.done is not None:
        if verbose:
            click.echo(watch.figures(answer.done), err=True)
        return judge(answer.done)
    return exits.DONE


def converse(client: Client, options: GenerateOptions, *, json_: bool) -> int:
    """Question and answer in turns, until Ctrl-D. Ctrl-C ends an answer, not the conversation."""
    terminal = Terminal()
    turns: list[Turn] = []
    _enable_line_editing()
    while True:
        try:
            words = input(">>> ").strip()
        except EOFError:
            click.echo()
            return exits.DONE
        if not words:
            continue
        turns.append(user(words))
        try:
            answer, _ = _stream(client, turns, options, terminal, json_=json_)
        except KeyboardInterrupt:
            terminal.note("(cancelled)")
            turns.pop()
        except RequestFailed as error:
            terminal.end_line()
            click.echo(f"inferdctl: {in_one_line(error)}", err=True)
            turns.pop()
        else:
            terminal.end_line()
            turns.append(assistant(answer.text or "(nothing)"))


def _stream(
    client: Client, prompt: Prompt, options: GenerateOptions, terminal: Terminal, *, json_: bool
) -> tuple[Completion, Stopwatch]:
    watch = Stopwatch(time.monotonic())
    with client.generate(prompt, **options) as answer:
        for event in answer:
            watch.saw(event, time.monotonic())
            if json_:
                terminal.line(event_json(event))
                continue
            match event:
                case TextDelta():
                    terminal.say(event.delta)
                case ThinkingDelta():
                    terminal.whisper(event.delta)
                case ToolUse():
                    terminal.line(tool_call(event.name, event.input))
                case Queued() if terminal.interactive:
                    terminal.note(f"(number {event.position} in the queue)")
    return answer.completion, watch


def judge(done: Done) -> int:
    """The exit code for how an answer ended; what is odd about it goes to stderr."""
    if done.stop_reason in ("end_turn", "tool_use", "stop_sequence"):
        return exits.DONE
    if done.stop_reason == "max_tokens":
        click.echo("inferdctl: the answer was cut at the token limit; see --max-tokens", err=True)
        return exits.DONE
    click.echo(f"inferdctl: the answer ended early: {done.stop_reason}", err=True)
    return exits.FAILED


def _is_route(client: Client, word: str) -> bool:
    try:
        return any(route.answers_to(word) for route in client.routes())
    except RequestFailed:
        return False  # a daemon without control operations: it has one route


def piped_text() -> str:
    """What a pipe or a file brings; a stdin that is neither may never end."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError:
        raise click.UsageError("standard input is not UTF-8 text") from None


def _enable_line_editing() -> None:
    from contextlib import suppress

    with suppress(ImportError):
        import readline  # noqa: F401
