"""`inferdctl daemon drain`: have the daemon stop when its running requests are done."""

import click

from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl daemon drain

Returns at once. New requests are refused from then on; running ones get drain_timeout_s.
A service manager may start the daemon again.
"""


@click.command(short_help="Stop once running requests are done.", epilog=_EPILOG)
@as_json("Print {state} as one JSON object.")
@connection
def command(json_: bool, socket: str | None, wait_s: float) -> None:
    """Have the daemon stop once its running requests are done."""
    from ..render import json_line

    with connect(socket, wait_s) as client:
        answer = client.call("daemon.drain")
    click.echo(json_line(answer) if json_ else "the daemon stops")
