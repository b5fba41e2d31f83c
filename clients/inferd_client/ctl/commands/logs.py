"""`inferdctl logs`: what a runtime's processes wrote."""

import click

from ..options import as_json, complete_runtime, connect, connection

_EPILOG = """\b
examples:
  inferdctl logs qwen3
  inferdctl logs -f qwen3               and what it writes from now on, until Ctrl-C
  inferdctl logs -n 1000 qwen3 | grep -i error

MODEL as for `inferdctl stop`; a runtime that failed keeps its log.
"""


@click.command(short_help="Show what a runtime wrote; -f follows.", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_runtime)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is still to come.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="How many of the last lines.",
)
@as_json('Print one object a line: {"line"}, or {"missed"} for lines that went by.')
@connection
def command(
    model: str, follow: bool, lines: int, json_: bool, socket: str | None, wait_s: float
) -> int:
    """Show the last lines that the runtime of MODEL wrote."""
    from .. import exits
    from ..render import json_line
    from ..terminal import Terminal

    terminal = Terminal()
    with (
        connect(socket, wait_s) as client,
        client.logs(model, follow=follow, lines=lines) as written,
    ):
        for text, missed in written:
            if json_:
                terminal.line(json_line({"missed": missed} if missed else {"line": text}))
            elif missed:
                click.echo(f"({missed} lines were missed)", err=True)
            else:
                terminal.say(f"{text}\n")
    if not follow:
        return exits.DONE
    click.echo(
        "inferdctl: the daemon ended this: it stops, goes on as another version, or has forgotten "
        "the runtime",
        err=True,
    )
    return exits.FAILED
