"""`inferdctl load`: have a model ready before it is asked for, and keep it."""

import click

from ..durations import KEEP
from ..options import as_json, complete_model, connect, connection, ensuring
from ..target import HELP

OWNER = "inferdctl load"
"""Of the leases that `unload` ends."""

_EPILOG = (
    """\b
examples:
  inferdctl load qwen3                  start it; it stays warm as its idle_ttl says
  inferdctl load qwen3 --keep 2h        and hold it for two hours, whatever else wants room
  inferdctl load qwen3 --keep forever   hold it as long as this command runs
  inferdctl load ./tiny.gguf --set ctx_size=8192
  inferdctl unload qwen3                let go of it, and stop it

"""
    + HELP
)


@click.command(short_help="Start a model, and keep it loaded.", epilog=_EPILOG)
@click.argument("target", shell_complete=complete_model)
@click.option(
    "-k",
    "--keep",
    "keep_s",
    type=KEEP,
    default="0",
    metavar="DURATION",
    help="Hold it so long: 5m, 2h, at most 24h; 0 (default) leaves it to its idle_ttl;"
    " forever holds it until Ctrl-C.",
)
@ensuring
@as_json("Print {runtime, lease} as one JSON object; lease is null where it is not held.")
@connection
def command(
    target: str,
    keep_s: float,
    tcp: bool,
    room_s: float,
    settings: tuple[str, ...],
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> None:
    """Have a runtime for TARGET ready; returns when it is."""
    import os

    from ...leases import EnsureOptions
    from ..holding import take, tell_loading
    from ..load_report import LoadReport
    from ..target import parse_target

    what = parse_target(target, settings)
    options = EnsureOptions(owner=OWNER, wait_s=room_s, transport="tcp" if tcp else "uds")
    tell_loading(target)
    with connect(socket, wait_s) as client:
        report = LoadReport(client, json_=json_)
        if not keep_s:
            with client.lease(what, **options) as lease:
                key = lease.record.instance_key
            report.warm(key)
            return
        older = [one.lease_ref for one in client.leases(owner=OWNER, uid=os.getuid())]
        take(client, what, keep_s, options, lambda got: report.held(got, older))
