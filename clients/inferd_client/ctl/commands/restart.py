"""`inferdctl restart`: end a runtime's process, and start it anew at the same address."""

import click

from ..options import as_json, complete_runtime, connect, connection

_EPILOG = """\b
examples:
  inferdctl restart qwen3
  inferdctl restart --force qwen3       although somebody holds it; leases stay

Returns when the old process is gone and the new one starts: `inferdctl watch` tells when
it is ready. MODEL as for `inferdctl stop`.
"""


@click.command(short_help="Restart a runtime; leases and address stay.", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_runtime)
@click.option("-f", "--force", is_flag=True, help="Also while somebody holds it.")
@as_json("Print the runtime as it is then, one JSON object on one line.")
@connection
def command(model: str, force: bool, json_: bool, socket: str | None, wait_s: float) -> None:
    """Restart the runtime of MODEL."""
    import msgspec

    from ..render import json_line, printable

    with connect(socket, wait_s) as client:
        runtime = client.restart(model, force=force)
    if json_:
        click.echo(json_line(msgspec.to_builtins(runtime)))
    else:
        click.echo(printable(f"{runtime.name} is {runtime.state}"))
