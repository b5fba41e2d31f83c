"""Taking a lease on the command line: one that outlives the command, or one that it holds."""

import sys
import time
from collections.abc import Callable

import click

from inferd_proto import LeaseEnsured

from ..blocking import Client
from ..leases import EnsureOptions, Target
from .durations import FOREVER

_LOOK_S = 0.2


def take(
    client: Client,
    target: Target,
    ttl_s: float,
    options: EnsureOptions,
    show: Callable[[LeaseEnsured], None],
) -> None:
    """Have it ready and leased for `ttl_s`, and show it; for `FOREVER`, hold it until Ctrl-C.

    Raises LeaseLost where what is held is lost.
    """
    if ttl_s < FOREVER:
        show(client.ensure(target, **options | {"ttl": ttl_s}))
        return
    with client.lease(target, **options) as lease:
        show(lease.granted)
        sys.stdout.flush()
        click.echo("held until Ctrl-C", err=True)
        while True:
            lease.check()
            time.sleep(_LOOK_S)


def tell_loading(word: str) -> None:
    """A start takes a while, and whoever watches should know; a script should not."""
    if sys.stderr.isatty():
        click.echo(f"having {word} ready …", err=True)
