"""`inferdctl daemon`: the daemon itself."""

import click

from ..verbs import VerbGroup

_EPILOG = """\b
examples:
  inferdctl daemon upgrade            after an upgrade of the package, or of its configuration
  inferdctl daemon drain              stop, once running requests are done
"""


@click.group(
    cls=VerbGroup,
    verbs={name: f"daemon_{name}" for name in ("upgrade", "drain")},
    invoke_without_command=True,
    short_help="Upgrade or stop the daemon.",
    epilog=_EPILOG,
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Upgrade the daemon in place, or have it stop."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
