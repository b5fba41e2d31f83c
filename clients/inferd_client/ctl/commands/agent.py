"""`inferdctl agent`: CLI agents, asked by this daemon and held as endpoints."""

import click

from ..verbs import VerbGroup

_EPILOG = """\b
examples:
  inferdctl agent ls
  inferdctl agent run claude --model opus "Why is the sky blue?"
  inferdctl agent run codex --upstream qwen3 < question.txt
  inferdctl agent endpoint claude --upstream qwen3 --env

An agent is the program of its vendor (codex, claude, gemini, amp), run by the daemon in an
empty directory, without tools: it completes and streams. With --upstream it runs on a
route of this daemon, and needs no account.
"""


@click.group(
    cls=VerbGroup,
    verbs={name: f"agent_{name}" for name in ("ls", "run", "endpoint")},
    invoke_without_command=True,
    short_help="Ask CLI agents, list them, lease their endpoints.",
    epilog=_EPILOG,
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Ask CLI agents, list them, and lease endpoints of theirs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
