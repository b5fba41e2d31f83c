"""`inferdctl endpoint`: where another tool finds a model, and with which key."""

import click

from ..durations import TTL
from ..options import as_json, complete_model, connect, connection, ensuring
from ..target import HELP

OWNER = "inferdctl endpoint"

_EPILOG = (
    """\b
examples:
  inferdctl endpoint qwen3
  env $(inferdctl endpoint qwen3 --tcp --env) some-tool
  set -a; eval "$(inferdctl endpoint qwen3 --tcp --env)"; set +a
  inferdctl endpoint qwen3 --json | jq -r .endpoint.uds

The model is started where it does not run, and held for --ttl: the address and the key
are good so long, and may be used by any number of tools. A Unix socket is the default;
tools that know only URLs need --tcp: a loopback URL that the daemon carries to the model.

"""
    + HELP
)


@click.command(short_help="Print address and key, for another tool.", epilog=_EPILOG)
@click.argument("target", shell_complete=complete_model)
@click.option(
    "--ttl",
    "ttl_s",
    type=TTL,
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="Hold it so long; forever: until Ctrl-C.",
)
@click.option("--env", is_flag=True, help="Print OPENAI_BASE_URL and OPENAI_API_KEY lines alone.")
@ensuring
@as_json("Print {lease, endpoint, compatibility} as one JSON object; it holds the key.")
@connection
def command(
    target: str,
    ttl_s: float,
    env: bool,
    tcp: bool,
    room_s: float,
    settings: tuple[str, ...],
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> None:
    """Have a runtime for TARGET ready, and print where it is reached. It prints the key."""
    from ...leases import EnsureOptions
    from ..endpoint_text import print_endpoint
    from ..holding import take, tell_loading
    from ..target import parse_target

    if env and json_:
        raise click.UsageError("--env and --json exclude each other")

    what = parse_target(target, settings)
    options = EnsureOptions(owner=OWNER, wait_s=room_s, transport="tcp" if tcp else "uds")
    tell_loading(target)
    with connect(socket, wait_s) as client:
        take(
            client,
            what,
            ttl_s,
            options,
            lambda granted: print_endpoint(granted, env=env, json_=json_),
        )
