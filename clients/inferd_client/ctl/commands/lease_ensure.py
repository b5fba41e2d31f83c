"""`inferdctl lease ensure`: have a runtime ready, and hold it."""

import click

from .. import exits
from ..durations import TTL
from ..options import LABEL, as_json, complete_model, connect, connection, ensuring
from ..target import HELP

_EPILOG = (
    """\b
examples:
  inferdctl lease ensure qwen3 --ttl 10m
  inferdctl lease ensure qwen3 --plan            what it would take; starts nothing
  inferdctl lease ensure ./tiny.gguf --set ctx_size=8192 --json | jq -r .lease.lease_ref
  inferdctl lease ensure qwen3 --wait-room 5m    wait until others made room
  inferdctl lease ensure qwen3 --ttl forever     hold it until Ctrl-C

"""
    + HELP
)


@click.command(short_help="Have a runtime ready, and hold it.", epilog=_EPILOG)
@click.argument("target", shell_complete=complete_model)
@click.option(
    "--ttl",
    "ttl_s",
    type=TTL,
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="How long it lives without a renewal; forever: until Ctrl-C.",
)
@click.option("--owner", default=LABEL, show_default=True, help="Who holds it, for people.")
@click.option(
    "--plan", is_flag=True, help="Only tell what it would take; exit 1 where it does not fit."
)
@ensuring
@as_json("Print {lease, endpoint, compatibility}, or the plan, as one JSON object.")
@connection
def command(
    target: str,
    ttl_s: float,
    owner: str,
    plan: bool,
    tcp: bool,
    room_s: float,
    settings: tuple[str, ...],
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> int:
    """Have a runtime for TARGET ready and lease it; returns when it is ready."""
    import msgspec

    from inferd_proto import LeaseEnsured

    from ...leases import EnsureOptions
    from ..holding import take, tell_loading
    from ..render import json_line, printable
    from ..tables import plan_lines, time_left
    from ..target import parse_target

    def show(granted: LeaseEnsured) -> None:
        if json_:
            click.echo(json_line(msgspec.to_builtins(granted)))
            return
        lease = granted.lease
        left = f", {time_left(lease)} left" if lease.bind == "none" else ""
        click.echo(printable(f"{lease.lease_ref} on {lease.instance_key}{left}"))

    what = parse_target(target, settings)
    options = EnsureOptions(owner=owner, wait_s=room_s, transport="tcp" if tcp else "uds")
    with connect(socket, wait_s) as client:
        if plan:
            told = client.plan(what, **options)
            text = json_line(msgspec.to_builtins(told)) if json_ else "\n".join(plan_lines(told))
            click.echo(text)
            return exits.FAILED if told.verdict == "refused" else exits.DONE
        tell_loading(target)
        take(client, what, ttl_s, options, show)
    return exits.DONE
