"""`inferdctl watch`: every change, as it happens."""

import click

from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl watch
  inferdctl watch --json | jq -c 'select(.type == "runtime") | .runtime | {name, state}'

First what there is, then every change of runtimes, leases and routes, until Ctrl-C.
"""


@click.command(short_help="Watch runtimes, leases and routes change.", epilog=_EPILOG)
@as_json("Print the daemon's own words, one JSON object a line.")
@connection
def command(json_: bool, socket: str | None, wait_s: float) -> int:
    """Show every change of runtimes, leases and routes as it happens."""
    import time

    from .. import exits
    from ..render import json_line
    from ..tables import change_lines
    from ..terminal import Terminal

    terminal = Terminal()
    with connect(socket, wait_s) as client, client.watch() as changes:
        for change in changes:
            if json_:
                terminal.line(json_line(change.fields))
                continue
            now = time.strftime("%H:%M:%S")
            for line in change_lines(change):
                terminal.line(f"{now}  {line}")
    # Whoever watches ends it by Ctrl-C; nothing else is the end of what there is to see.
    click.echo(
        "inferdctl: the daemon ended this: it stops, or goes on as another version; watch again",
        err=True,
    )
    return exits.FAILED
