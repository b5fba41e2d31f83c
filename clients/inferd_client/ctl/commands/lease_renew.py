"""`inferdctl lease renew`: more time for a lease."""

import click

from ..durations import MAX_TTL_S, Duration
from ..lease_ref import LEASE_REF
from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl lease renew lease-3f2a… --ttl 1h
"""


@click.command(short_help="Give a lease more time, from now on.", epilog=_EPILOG)
@click.argument("lease_ref", type=LEASE_REF)
@click.option(
    "--ttl",
    "ttl_s",
    type=Duration(at_least=1, at_most=MAX_TTL_S, why="a lease lives from 1 s to 24 h"),
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="How long it lives from now on.",
)
@as_json("Print the lease as one JSON object.")
@connection
def command(lease_ref: str, ttl_s: float, json_: bool, socket: str | None, wait_s: float) -> None:
    """Give the lease LEASE_REF more time."""
    import msgspec

    from ..render import json_line, printable
    from ..tables import time_left

    with connect(socket, wait_s) as client:
        lease = client.renew(lease_ref, ttl_s)
    if json_:
        click.echo(json_line(msgspec.to_builtins(lease)))
    else:
        click.echo(printable(f"{lease.lease_ref}: {time_left(lease)} left"))
