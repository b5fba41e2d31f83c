"""What `inferdctl load` tells when the model is ready."""

from collections.abc import Sequence

import click
import msgspec

from inferd_proto import Lease, LeaseEnsured, Runtime

from ..blocking import Client
from .render import json_line, printable
from .tables import time_left, until


class LoadReport:
    """Prints once, in words or in JSON."""

    def __init__(self, client: Client, *, json_: bool) -> None:
        self._client = client
        self._json = json_

    def warm(self, instance_key: str) -> None:
        """Ready, and held by nobody on our account."""
        runtime = self._client.runtime(instance_key)
        if self._json:
            self._print_json(runtime, None)
        else:
            click.echo(printable(f"{runtime.name} {_how_long(runtime)}"))

    def held(self, granted: LeaseEnsured, older: Sequence[str]) -> None:
        """Ready and leased. A former `load` of the same runtime is replaced by this one."""
        lease = granted.lease
        for former in self._client.leases(owner=lease.owner_ref, instance_key=lease.instance_key):
            if former.lease_ref in older:
                self._client.release(former.lease_ref)
        runtime = self._client.runtime(lease.instance_key)
        if self._json:
            self._print_json(runtime, lease)
        else:
            held = f"held for {time_left(lease)}" if lease.bind == "none" else "held"
            words = f"{runtime.name} is {runtime.state}; {held} by {lease.lease_ref}"
            click.echo(printable(words))

    def _print_json(self, runtime: Runtime, lease: Lease | None) -> None:
        plain = msgspec.to_builtins({"runtime": runtime, "lease": lease})
        click.echo(json_line(plain))


def _how_long(runtime: Runtime) -> str:
    if runtime.state in ("draining", "stopped"):
        return "was ready; its idle_ttl is 0, and nobody uses it, so it is stopped"
    if runtime.leases:
        return f"is {runtime.state}, and held by others"
    if runtime.idle_left_ms is None:
        return f"is {runtime.state}, and stays"
    return f"is {runtime.state}; it stops {until(runtime, [])} if nobody uses it"
