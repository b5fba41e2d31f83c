"""`inferdctl daemon upgrade`: go over to the code that is installed now, in place."""

import time

import click

from ..options import as_json, connect, connection

LOOK_S = 0.02
_EPILOG = """\b
examples:
  inferdctl daemon upgrade

The new code is checked first: where it does not start, or the configuration is wrong, the
daemon goes on as it is and this says why. Running requests are finished first, others wait;
runtimes, leases and connections stay.
"""


@click.command(short_help="Go over to newly installed code.", epilog=_EPILOG)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for it to be done; 0 returns once it has begun.",
)
@as_json("Print {pid, version, upgrades} as one JSON object.")
@connection
def command(timeout_s: float, json_: bool, socket: str | None, wait_s: float) -> None:
    """Have the daemon go over to the code and configuration that are there now."""
    from ..render import json_line, printable

    with connect(socket, wait_s) as client:
        before = _look(client.call("status"))
        client.call("daemon.upgrade")
        deadline = time.monotonic() + timeout_s
        now = before
        while now["upgrades"] == before["upgrades"] and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = _look(client.call("status"))
    if timeout_s and now["upgrades"] == before["upgrades"]:
        raise click.ClickException(f"the upgrade was not done after {timeout_s:g} s; it goes on")
    shown = printable(f"inferd {now['version']} (pid {now['pid']}) has taken over")
    begun = "the upgrade has begun"
    click.echo(json_line(now) if json_ else (shown if timeout_s else begun))


def _look(status: object) -> dict[str, object]:
    fields = status if isinstance(status, dict) else {}
    return {name: fields.get(name) for name in ("pid", "version", "upgrades")}
