"""`inferdctl status`: is the daemon up, and what can it be asked?"""

import click

from .. import exits
from ..options import as_json, connect, connection

_EPILOG = """\b
examples:
  inferdctl status
  inferdctl status --json | jq .routes
  until inferdctl status --wait 30 >/dev/null; do sleep 1; done

\b
exit codes: 0 ready   1 up, but not ready   2 no daemon
"""


@click.command(short_help="Is the daemon ready? (exit 0, 1, 2)", epilog=_EPILOG)
@as_json("Print the daemon's own words, one JSON object on one line.")
@connection
def command(json_: bool, socket: str | None, wait_s: float) -> int:
    """Tell whether the daemon is ready, and show its routes."""
    from ...errors import ConnectError
    from ...status import to_status
    from ..render import json_line, status_line

    try:
        with connect(socket, wait_s) as client:
            value = client.call("status")
    except ConnectError as error:
        if json_:
            click.echo(json_line({"state": "down", "ready": False, "reason": str(error)}))
        raise
    status = to_status(value)
    if json_:
        click.echo(json_line(value))
    else:
        from ..terminal import print_routes

        click.echo(status_line(status))
        if status.routes:
            print_routes(status.routes)
    return exits.DONE if status.ready else exits.FAILED
