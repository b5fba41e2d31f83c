"""What a TARGET on the command line means: a route's name, a model file, or a spec."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from inferd_proto import JsonObject

from ..leases import Target
from .json_files import read_object

_SECRET_FIELDS = ("api_key", "headers")
"""Other users of the machine can read a command line."""

HELP = """\b
TARGET is one of
  qwen3            a route of the daemon
  ./model.gguf     a model file: a llama-server for it, by a boot spec
  http://host:1234 a service that runs already; see --set kind=ollama
  @spec.json       a whole spec in a file; @- reads it from standard input
"""


def parse_target(word: str, settings: Sequence[str]) -> Target:
    """Raises UsageError where `word`, or a setting `field=value`, means nothing."""
    spec = _spec(word)
    if spec is None:
        if settings:
            raise click.UsageError(
                f"--set changes a spec, and {word!r} is a route; its spec is the daemon's"
            )
        return word
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or not name:
            raise click.UsageError(f"--set wants FIELD=VALUE, not {setting!r}")
        if name in _SECRET_FIELDS:
            raise click.UsageError(
                f"{name} would be seen by every user of this machine: give it in @FILE or @-"
            )
        spec[name] = _value(value)
    return spec


def _spec(word: str) -> JsonObject | None:
    """None for a route."""
    if word.startswith("@"):
        return dict(read_object(word[1:]))
    if word.startswith("{"):
        # It may hold a key, and here every user of this machine sees it.
        raise click.UsageError("a whole spec is given in @FILE, or on standard input with @-")
    if word.startswith(("http://", "https://")):
        return {"root_url": word}
    if word.endswith(".gguf"):
        path = Path(word).expanduser()
        if not path.is_file():
            raise click.UsageError(f"there is no model file {word}")
        # The daemon has another working directory. Links stay: a store may move what is behind.
        return {"model": os.path.abspath(path)}
    return None


def _value(text: str) -> object:
    """JSON where it is some, else the text itself: `ctx_size=4096`, `flash_attn=on`."""
    try:
        return json.loads(text)
    except ValueError:
        return text
