"""`inferdctl demo`: the main job from end to end, on a machine that has no model yet."""

import click

from .. import exits
from ..options import as_json

_EPILOG = """\b
examples:
  inferdctl demo
  inferdctl demo --json | jq .answer.tokens_per_s

The daemon is private to this command: its socket is in a temporary directory, and both
are gone when the command ends, by Ctrl-C as well. The model ships with inferd: it
recites, but llama.cpp runs it as it runs any other.
"""


@click.command(short_help="See it work: no model and no daemon needed.", epilog=_EPILOG)
@as_json("Print the figures and texts as one JSON object, at the end.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For the daemon to get ready, and for each answer.",
)
def command(json_: bool, timeout_s: float) -> int:
    """Start a private daemon, stream an answer and a tool call from it, stop it."""
    from ..demonstration import demonstrate
    from ..private_daemon import PrivateDaemonFailed
    from ..render import json_line
    from ..terminal import Terminal

    terminal = Terminal(muted=json_)
    try:
        report = demonstrate(terminal, timeout_s)
    except PrivateDaemonFailed as error:
        terminal.end_line()
        click.echo(f"inferdctl: {error}", err=True)
        return exits.FAILED
    except BaseException:
        terminal.end_line()
        raise
    if json_:
        click.echo(json_line(report))
    return exits.DONE
