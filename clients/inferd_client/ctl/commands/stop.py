"""`inferdctl stop`: end a runtime, and free its memory."""

import click

from ..options import as_json, complete_runtime, connect, connection

_EPILOG = """\b
examples:
  inferdctl stop qwen3
  inferdctl stop qwen3-8b-3f2a          the beginning of an instance key
  inferdctl stop --force qwen3          although somebody holds it

MODEL is the name of a runtime, of its model, of a route that it stands behind, or the
beginning of its instance key; see `inferdctl ps`. Without --force it is refused while
somebody holds a lease or a request runs.
"""


@click.command(short_help="Stop a runtime and free its memory.", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_runtime)
@click.option("-f", "--force", is_flag=True, help="End its leases and requests as well.")
@as_json("Print the runtime as it is then, one JSON object on one line.")
@connection
def command(model: str, force: bool, json_: bool, socket: str | None, wait_s: float) -> None:
    """Stop the runtime of MODEL; returns when its process is gone."""
    import msgspec

    from ..render import json_line, printable

    with connect(socket, wait_s) as client:
        runtime = client.stop(model, force=force)
    if json_:
        click.echo(json_line(msgspec.to_builtins(runtime)))
    else:
        click.echo(printable(f"{runtime.name} is {runtime.state}"))
