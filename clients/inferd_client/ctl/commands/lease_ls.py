"""`inferdctl lease ls`: who holds what, for how long."""

import click

from ..options import as_json, complete_runtime, connect, connection

_EPILOG = """\b
examples:
  inferdctl lease ls
  inferdctl lease ls qwen3              those on one runtime
  inferdctl lease ls --owner nightly -q
  inferdctl lease ls --json | jq '[.leases[].left_ms] | max'

You see your own leases; root, the daemon's user and its admin group see all.
"""


@click.command(short_help="List leases: who holds what, how long.", epilog=_EPILOG)
@click.argument("model", required=False, shell_complete=complete_runtime)
@click.option("--owner", help="Those of this owner alone.")
@click.option("-q", "--quiet", is_flag=True, help="Print references alone, one a line.")
@as_json("Print {leases} as one JSON object.")
@connection
def command(
    model: str | None,
    owner: str | None,
    quiet: bool,
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> None:
    """List the living leases, those on the runtime of MODEL alone where it is given."""
    import msgspec

    from ..render import json_line
    from ..tables import leases_table
    from ..terminal import print_table

    with connect(socket, wait_s) as client:
        key = None if model is None else client.runtime(model).instance_key
        leases = client.leases(owner=owner, instance_key=key)
        runtimes = [] if json_ or quiet else client.runtimes()
    if json_:
        click.echo(json_line({"leases": msgspec.to_builtins(leases)}))
    elif quiet:
        for lease in leases:
            click.echo(lease.lease_ref)
    elif leases:
        print_table(leases_table(leases, runtimes))
    else:
        click.echo("There are no leases.")
