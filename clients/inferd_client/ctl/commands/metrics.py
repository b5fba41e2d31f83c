"""`inferdctl metrics`: what the daemon has counted, for Prometheus or for a script."""

import click

from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl metrics
  inferdctl metrics | grep ^inferd_route_
  inferdctl metrics > /var/lib/node_exporter/inferd.prom
  inferdctl metrics --json | jq '.metrics[] | select(.name == "inferd_leases")'

The same values as `/metrics` of the HTTP front, which need not be there for this.
Counters begin at 0 with each start or upgrade of the daemon.
"""


@click.command(short_help="Print the daemon's metrics for Prometheus.", epilog=_EPILOG)
@as_json("Print the daemon's own words, one JSON object on one line.")
@connection
def command(json_: bool, socket: str | None, wait_s: float) -> None:
    """Print what the daemon has counted, in the text format of Prometheus."""
    from ...metrics import exposition, to_metrics
    from ..render import json_line

    with connect(socket, wait_s) as client:
        value = client.call("metrics")
    if json_:
        click.echo(json_line(value))
    else:
        click.echo(exposition(to_metrics(value)), nl=False)
