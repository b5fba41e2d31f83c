"""`inferdctl completion`: what makes a shell complete verbs, options and model names."""

import click

_EPILOG = """\b
examples:
  bash:  inferdctl completion bash > ~/.local/share/bash-completion/completions/inferdctl
  zsh:   inferdctl completion zsh > "${fpath[1]}/_inferdctl"
  fish:  inferdctl completion fish > ~/.config/fish/completions/inferdctl.fish
"""


@click.command(short_help="Print a completion script for a shell.", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import get_completion_class

    from ..main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "inferdctl", "_INFERDCTL_COMPLETE").source())
