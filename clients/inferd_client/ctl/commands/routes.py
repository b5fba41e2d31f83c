"""`inferdctl routes`: the names that can be asked for."""

import click

from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl routes
  inferdctl routes -q | head -1
  inferdctl routes --json | jq -r '.routes[] | select(.ready) | .name'

The route with a star is the default: it answers where no model is named.

A backend is asked while those of a lower rank ("1.", "2.") are not there to be
asked; those of one rank share the load. A backend that failed several times
is left alone for a while: its breaker is open.
"""


@click.command(short_help="List the names that can be asked for.", epilog=_EPILOG)
@as_json("Print the daemon's own words, one JSON object on one line.")
@click.option("-q", "--quiet", is_flag=True, help="Print the names alone, one a line.")
@connection
def command(json_: bool, quiet: bool, socket: str | None, wait_s: float) -> None:
    """List the routes: what each is called, how busy it is, what stands behind it."""
    from ...status import to_routes
    from ..render import json_line, printable

    with connect(socket, wait_s) as client:
        value = client.call("route.list")
    routes = to_routes(value)
    if json_:
        click.echo(json_line(value))
    elif quiet:
        for route in routes:
            click.echo(printable(route.name))
    elif routes:
        from ..terminal import print_routes

        print_routes(routes)
    else:
        click.echo("The daemon has no routes.")
