"""The main job from end to end: a private daemon, an answer and a tool call from it, figures."""

import time

from inferd_proto import JsonObject, TextDelta, Tool, ToolUse

from ..blocking import Client
from ..errors import InferdError
from ..requests import GenerateOptions
from .failure import in_one_line
from .figures import Stopwatch
from .private_daemon import PrivateDaemon, PrivateDaemonFailed, private_daemon
from .render import duration, tool_call
from .terminal import Terminal

_ROUTE = "demo"
_QUESTION = "Who are you, and what can you do?"
_TOOL_QUESTION = "What is the weather in Oslo?"
_WEATHER = Tool(
    "weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "The weather of a city for some days.",
)


def demonstrate(terminal: Terminal, timeout_s: float) -> JsonObject:
    """Show it all; returns the figures. Raises PrivateDaemonFailed with the daemon's last words."""
    started = time.monotonic()
    with private_daemon(["--demo"]) as daemon:
        terminal.note(f"a private daemon is starting on {daemon.socket}")
        daemon.await_ready(_ROUTE, timeout_s)
        ready_s = time.monotonic() - started
        terminal.note(f"ready after {duration(ready_s)} (pid {daemon.pid}, route {_ROUTE!r})\n")
        answer, call = _ask(daemon, terminal, timeout_s)
        stopping = time.monotonic()
    terminal.note(f"stopped in {duration(time.monotonic() - stopping)}; nothing is left behind\n")
    terminal.line('Your own model:   inferd --model FILE.gguf   then   inferdctl run "Hello"')
    return {"ready_ms": round(ready_s * 1000, 3), "answer": answer, "tool_call": call}


def _ask(
    daemon: PrivateDaemon, terminal: Terminal, timeout_s: float
) -> tuple[JsonObject, JsonObject]:
    try:
        with Client(daemon.socket, timeout_s=timeout_s) as client:
            options = GenerateOptions(model=_ROUTE, temperature=0.0)
            answer = _show(client, terminal, _QUESTION, options)
            terminal.line("")
            options["tools"] = [_WEATHER]
            options["tool_choice"] = "required"
            return answer, _show(client, terminal, _TOOL_QUESTION, options)
    except InferdError as error:
        daemon.check_alive()
        why = in_one_line(error)
        raise PrivateDaemonFailed(f"{why}{daemon.last_words()}") from error


def _show(
    client: Client, terminal: Terminal, question: str, options: GenerateOptions
) -> JsonObject:
    tools = ", ".join(tool.name for tool in options.get("tools", ()))
    terminal.title(f"> {question}" + (f"   (it must call a tool: {tools})" if tools else ""))
    watch = Stopwatch(time.monotonic())
    with client.generate(question, **options) as answer:
        for event in answer:
            watch.saw(event, time.monotonic())
            if isinstance(event, TextDelta):
                terminal.say(event.delta)
            elif isinstance(event, ToolUse):
                terminal.line(tool_call(event.name, event.input))
    whole = answer.completion
    assert whole.done is not None
    figures = watch.measure(whole.done)
    terminal.note(f"{figures.in_words()} (stop reason: {whole.done.stop_reason})")
    calls = [{"name": call.name, "input": call.input} for call in whole.tool_calls]
    shown: JsonObject = {"text": whole.text, "tool_calls": calls}
    return shown | {"stop_reason": whole.done.stop_reason} | figures.as_fields()
