"""`inferdctl lease`: holds on runtimes, one by one."""

import click

from ..verbs import VerbGroup

_EPILOG = """\b
examples:
  inferdctl lease ensure qwen3 --ttl 10m
  inferdctl lease renew lease-3f2a… --ttl 10m
  inferdctl lease release lease-3f2a…
  inferdctl lease ls

A lease is one owner's claim on one runtime: while it lives, the daemon neither stops nor
replaces the runtime of its own accord. Programs take leases by the client library, which
renews them; `inferdctl load` and `inferdctl endpoint` take them for people.
"""


@click.group(
    cls=VerbGroup,
    verbs={name: f"lease_{name}" for name in ("ensure", "renew", "release", "ls")},
    invoke_without_command=True,
    short_help="Take, renew, release and list leases.",
    epilog=_EPILOG,
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Take, renew, release and list leases on runtimes."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
