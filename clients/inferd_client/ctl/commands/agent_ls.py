"""`inferdctl agent ls`: which CLI agents there are, and whether they can work."""

import click

from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl agent ls
  inferdctl agent ls --json | jq -r '.agents[] | select(.found) | .provider'

ROUTES is the API that a route's server must have for --upstream: a llama-server has all.
"""


@click.command(short_help="Show the providers: found, version, login.", epilog=_EPILOG)
@as_json("Print the daemon's own words, one JSON object on one line.")
@connection
def command(json_: bool, socket: str | None, wait_s: float) -> None:
    """Show which agents' programs the daemon finds, and whether they are logged in."""
    from ...leases import to_agents
    from ..agent_table import agents_table, problem_lines
    from ..render import json_line
    from ..terminal import print_table

    with connect(socket, wait_s) as client:
        value = client.call("agent.list")
    if json_:
        click.echo(json_line(value))
        return
    agents = to_agents(value)
    print_table(agents_table(agents))
    for line in problem_lines(agents):
        click.echo(line)
