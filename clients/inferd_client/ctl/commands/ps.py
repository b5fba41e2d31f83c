"""`inferdctl ps`: what runs, how healthy, how large, and until when."""

import click

from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl ps
  inferdctl ps -a                       those that were stopped as well
  inferdctl ps -q                       instance keys alone, one a line
  inferdctl ps --json | jq -r '.runtimes[] | select(.leases == 0) | .name'

UNTIL tells when a runtime ends if nobody does anything: "leased" (the time that is left
of its leases), "in …" (nobody holds it; it is kept warm so long), or "forever".
"""


@click.command(short_help="Show the runtimes: state, memory, leases.", epilog=_EPILOG)
@click.option("-a", "--all", "all_", is_flag=True, help="Show stopped ones as well.")
@click.option("-q", "--quiet", is_flag=True, help="Print instance keys alone, one a line.")
@as_json("Print the daemon's own words, one JSON object on one line; always all runtimes.")
@connection
def command(all_: bool, quiet: bool, json_: bool, socket: str | None, wait_s: float) -> None:
    """Show the runtimes of the daemon: servers and workers that have a model loaded."""
    from ...runtimes import to_runtimes
    from ..render import json_line, printable
    from ..tables import runtimes_table
    from ..terminal import print_table

    with connect(socket, wait_s) as client:
        value = client.call("runtime.list")
        leases = [] if quiet or json_ else client.leases()
    if json_:
        click.echo(json_line(value))
        return
    runtimes = [one for one in to_runtimes(value) if all_ or one.state != "stopped"]
    if quiet:
        for runtime in runtimes:
            click.echo(runtime.instance_key)
        return
    if not runtimes:
        click.echo("Nothing runs." if not all_ else "There are no runtimes.")
        return
    print_table(runtimes_table(runtimes, leases))
    for runtime in runtimes:
        if runtime.last_error and runtime.state == "failed":
            click.echo(printable(f"{runtime.name}: {runtime.last_error}"))
