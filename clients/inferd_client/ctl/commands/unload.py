"""`inferdctl unload`: let go of what `load` holds, and stop it."""

import click

from ..options import as_json, complete_runtime, connect, connection
from .load import OWNER

_EPILOG = """\b
examples:
  inferdctl unload qwen3
  inferdctl unload --force qwen3        although others hold it

Ends the leases that `inferdctl load` took for you, then stops the runtime. Where others
hold it, it stays, and the exit code is 1. MODEL as for `inferdctl stop`.
"""


@click.command(short_help="Undo load: let go of a model, and stop it.", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_runtime)
@click.option("-f", "--force", is_flag=True, help="End the leases of others as well.")
@as_json("Print {runtime, released} as one JSON object.")
@connection
def command(model: str, force: bool, json_: bool, socket: str | None, wait_s: float) -> None:
    """Let go of MODEL, and stop it."""
    import os

    import msgspec

    from ...errors import PermissionDenied
    from ..render import json_line, printable

    with connect(socket, wait_s) as client:
        runtime = client.runtime(model)
        key = runtime.instance_key
        mine = client.leases(owner=OWNER, instance_key=key, uid=os.getuid())
        for lease in mine:
            client.release(lease.lease_ref)
        try:
            runtime = client.stop(key, force=force)
        except PermissionDenied:
            if not mine or force:
                raise
            runtime = client.runtime(key)  # a user lets go; the daemon stops it in its time
    if json_:
        released = [lease.lease_ref for lease in mine]
        click.echo(json_line({"runtime": msgspec.to_builtins(runtime), "released": released}))
    elif runtime.state == "stopped":
        click.echo(printable(f"{runtime.name} is stopped"))
    else:
        click.echo(printable(f"{runtime.name} is let go; it stops once it has been idle"))
