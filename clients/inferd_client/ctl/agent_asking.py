"""A question to a CLI agent: a lease for as long as the answer takes, and one request over HTTP."""

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from inferd_proto import TextDelta, ThinkingDelta

from ..answers import Event
from ..blocking import Client
from ..errors import ConnectionLost, RequestFailed
from ..leases import EnsureOptions
from .asking import judge, piped_text
from .chat_events import ChatEvents, failed
from .figures import Stopwatch
from .render import event_json, json_line
from .terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..blocking_lease import HeldLease

_OK = 200


class AgentQuestion(NamedTuple):
    """What to ask of whom; without a model, what the operator has set for the agent."""

    agent: str
    model: str | None
    upstream: str | None
    prompt: str
    system: str | None = None
    max_tokens: int | None = None

    def options(self, owner: str) -> EnsureOptions:
        """Of its lease."""
        options = EnsureOptions(agent=self.agent, owner=owner)
        if self.model is not None:
            options["model"] = self.model
        if self.upstream is not None:
            options["upstream"] = self.upstream
        return options

    def body(self, model: str) -> dict[str, Any]:
        """Of the request."""
        messages = [{"role": "user", "content": self.prompt}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return body if self.max_tokens is None else body | {"max_tokens": self.max_tokens}


def find_prompt(prompt: str | None) -> str:
    """The argument, and what is piped in after it. Raises UsageError where there is neither."""
    text = "\n\n".join(part for part in (prompt, piped_text()) if part)
    if not text:
        raise click.UsageError("there is no prompt: give one, or pipe one in")
    return text


def ask_agent(
    client: Client, question: AgentQuestion, owner: str, *, json_: bool, verbose: bool
) -> int:
    """Stream one answer; returns the exit code. Leaving early ends the agent's run."""
    terminal, watch = Terminal(), Stopwatch(time.monotonic())
    with client.lease(**question.options(owner)) as lease:
        events = ChatEvents(lease.endpoint.provider_identity)
        try:
            for event in _stream(lease, question, events):
                watch.saw(event, time.monotonic())
                _show(event, terminal, json_=json_)
        except RequestFailed as error:
            if json_:
                fields = {"type": "error", "code": error.code.value, "message": error.message}
                terminal.line(json_line(fields))
            raise
        finally:
            terminal.end_line()
        done = events.finish()
    watch.saw(done, time.monotonic())
    if json_:
        terminal.line(event_json(done))
    if verbose:
        click.echo(watch.figures(done), err=True)
    return judge(done)


def _show(event: Event, terminal: Terminal, *, json_: bool) -> None:
    if json_:
        terminal.line(event_json(event))
    elif isinstance(event, TextDelta):
        terminal.say(event.delta)
    elif isinstance(event, ThinkingDelta):
        terminal.whisper(event.delta)


def _stream(lease: "HeldLease", question: AgentQuestion, events: ChatEvents) -> "Iterator[Event]":
    import httpx

    body = question.body(lease.endpoint.model_identity)
    try:
        with (
            lease.http_client() as http,
            http.stream("POST", "/chat/completions", json=body) as response,
        ):
            if response.status_code != _OK:
                raise failed(_json(response.read()))
            for line in response.iter_lines():
                yield from events.feed(line)
    except httpx.TransportError as error:
        raise ConnectionLost(f"the agent's endpoint broke off: {error}") from error


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
