"""argv to one verb, and whatever happens to an exit code and at most one line on stderr.

Start-up time is part of the product: a verb is imported when it is called, and nothing here
imports rich, anyio or a socket.
"""

import os
import sys
from contextlib import suppress

import click

from inferd_proto import __version__

from ..errors import ConnectError, InferdError
from . import exits
from .failure import in_one_line
from .verbs import VerbGroup

_VERBS = (
    "demo",
    "run",
    "embed",
    "rerank",
    "status",
    "routes",
    "ps",
    "load",
    "unload",
    "stop",
    "restart",
    "logs",
    "watch",
    "metrics",
    "endpoint",
    "agent",
    "lease",
    "daemon",
    "completion",
)

_EPILOG = """\b
examples:
  inferdctl demo                      see it work, no model and no daemon needed
  inferdctl run "Why is the sky blue?"
  git diff | inferdctl run qwen3 "Write a commit message for this:"
  inferdctl status --json && echo up
  inferdctl ps                        what runs, how healthy, how large, until when
  inferdctl load qwen3 --keep 2h      start it now, and hold it for two hours
  inferdctl endpoint qwen3 --env      the address and key, for another tool

\b
exit codes:
  0 done   1 failed, or not ready   2 no daemon   64 usage   130 interrupted

\b
The daemon's socket is --socket, else $INFERD_SOCKET, else inferd.sock in the
first of $INFERD_RUNTIME_DIR, $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/inferd,
~/.inferd/run.
"""


@click.group(
    cls=VerbGroup,
    verbs={verb: verb for verb in _VERBS},
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
)
@click.version_option(__version__, message="inferdctl %(version)s")
@click.option("--socket", metavar="PATH", help="The daemon's socket, for whichever command.")
@click.pass_context
def cli(ctx: click.Context, socket: str | None) -> None:
    """Talk to inferd, the inference daemon of this machine."""
    del socket  # the commands' own option falls back on it
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        code = _run(argv)
        sys.stdout.flush()
    except OSError as error:
        _give_up_output()
        what = f"{error.filename}: " if error.filename else ""
        with suppress(OSError):
            click.echo(f"inferdctl: {what}{error.strerror or error}", err=True)
        return exits.FAILED
    return code


def _run(argv: list[str]) -> int:
    try:
        code = cli.main(argv, prog_name="inferdctl", standalone_mode=False)
    except click.Abort:
        return exits.INTERRUPTED
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "inferdctl"
        why = " ".join(error.format_message().split()).rstrip(".")
        click.echo(f"{where}: {why}; see `{where} --help`", err=True)
        return exits.USAGE
    except click.ClickException as error:
        error.show()
        return exits.FAILED
    except InferdError as error:
        click.echo(f"inferdctl: {in_one_line(error)}", err=True)
        return exits.NO_DAEMON if isinstance(error, ConnectError) else exits.FAILED
    return code if isinstance(code, int) else exits.DONE


def _give_up_output() -> None:
    """What could not be written is not tried again when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
