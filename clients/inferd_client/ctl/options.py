"""Options that several verbs share, and the client that they mean."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .durations import Duration

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..blocking import Client

Command = TypeVar("Command", bound=Callable[..., Any])

LABEL = "inferdctl"
COMPLETION_TIMEOUT_S = 0.5
"""A shell waits for its completions."""


def connection(command: Command) -> Command:
    """`--socket` and `--wait`."""
    socket = click.option("--socket", metavar="PATH", callback=_socket, help="The daemon's socket.")
    wait = click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Wait this long for a daemon that is coming up.",
    )
    return socket(wait(command))


def _socket(ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """The command's own, else what stands before the command."""
    return ctx.find_root().params.get("socket") if value is None else value


def as_json(text: str) -> Callable[[Command], Command]:
    """`--json`, with what it prints."""
    return click.option("--json", "json_", is_flag=True, help=text)


def connect(socket: str | None, wait_s: float = 0.0) -> "Client":
    """A client for this command line."""
    from ..blocking import Client

    return Client(socket, wait_s=wait_s, label=LABEL)


def settings(command: Command) -> Command:
    """`--set`, for verbs that take a TARGET."""
    option = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="FIELD=VALUE",
        help="A field of the spec: --set ctx_size=8192 --set flash_attn=on",
    )
    return option(command)


def ensuring(command: Command) -> Command:
    """What verbs that take a lease share: how to reach the runtime, and how long to wait."""
    tcp = click.option(
        "--tcp", is_flag=True, help="Ask for a loopback URL instead of a Unix socket."
    )
    patience = click.option(
        "--wait-room",
        "room_s",
        type=Duration(at_most=3600, why="at most 1 h"),
        default="0",
        metavar="DURATION",
        help="Wait this long for memory, or a place, that others have now.",
    )
    return tcp(patience(settings(command)))


def complete_runtime(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Names of runtimes, where a daemon answers at once."""
    from click.shell_completion import CompletionItem

    from ..blocking import Client
    from ..errors import InferdError

    try:
        with Client(ctx.params.get("socket"), timeout_s=COMPLETION_TIMEOUT_S) as client:
            names = [runtime.name for runtime in client.runtimes()]
    except InferdError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_model(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Route names, where a daemon answers at once."""
    from click.shell_completion import CompletionItem

    from ..blocking import Client
    from ..errors import InferdError

    try:
        with Client(ctx.params.get("socket"), timeout_s=COMPLETION_TIMEOUT_S) as client:
            routes = client.routes()
    except InferdError:
        return []
    names = [name for route in routes for name in (route.name, *route.aliases)]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
