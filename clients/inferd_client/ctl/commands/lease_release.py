"""`inferdctl lease release`: give leases back."""

import click

from ..lease_ref import LEASE_REF
from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl lease release lease-3f2a…
  inferdctl lease ls --owner nightly -q | xargs inferdctl lease release

It is no error where a lease has ended already; a reference that is cut off is one, and then
nothing is released.
"""


@click.command(short_help="End leases; ended ones are no error.", epilog=_EPILOG)
@click.argument("lease_refs", nargs=-1, required=True, type=LEASE_REF)
@as_json("Print {released} as one JSON object.")
@connection
def command(lease_refs: tuple[str, ...], json_: bool, socket: str | None, wait_s: float) -> None:
    """End the leases LEASE_REFS."""
    from ..render import json_line

    with connect(socket, wait_s) as client:
        for lease_ref in lease_refs:
            client.release(lease_ref)
    if json_:
        click.echo(json_line({"released": list(lease_refs)}))
