"""`inferdctl agent endpoint`: a CLI agent as an OpenAI endpoint, for another tool."""

import click

from ..durations import TTL
from ..options import as_json, complete_model, connect, connection

OWNER = "inferdctl agent endpoint"

_EPILOG = """\b
examples:
  inferdctl agent endpoint claude --model opus
  env $(inferdctl agent endpoint codex --upstream qwen3 --env) some-tool

It is held for --ttl: the address and the key are good so long. Each request is one run of
the agent's program; it takes chat completions without tools.
"""


@click.command(short_help="Print an agent's address and key.", epilog=_EPILOG)
@click.argument("agent")
@click.option("-m", "--model", metavar="NAME", help="What the agent is told to ask for.")
@click.option(
    "--upstream",
    metavar="ROUTE",
    shell_complete=complete_model,
    help="Run it on this route of the daemon.",
)
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
@as_json("Print {lease, endpoint, compatibility} as one JSON object; it holds the key.")
@connection
def command(
    agent: str,
    model: str | None,
    upstream: str | None,
    ttl_s: float,
    env: bool,
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> None:
    """Have AGENT ready, and print where it is reached. It prints the key."""
    from ..endpoint_text import print_endpoint
    from ..holding import take

    if env and json_:
        raise click.UsageError("--env and --json exclude each other")
    asked = {"agent": agent, "model": model, "upstream": upstream}
    target = {name: value for name, value in asked.items() if value is not None}
    with connect(socket, wait_s) as client:
        take(
            client,
            target,
            ttl_s,
            {"owner": OWNER},
            lambda granted: print_endpoint(granted, env=env, json_=json_),
        )
