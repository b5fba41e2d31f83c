"""An endpoint for people and for shells. These lines hold its key: it was asked for."""

import shlex

import click
import msgspec

from inferd_proto import EndpointDescriptor, LeaseEnsured

from ..endpoint import api_key
from .render import json_line, printable
from .tables import time_left

NO_KEY = "none"
"""Where the endpoint wants no key: many tools refuse to start with an empty one."""


def print_endpoint(granted: LeaseEnsured, *, env: bool, json_: bool) -> None:
    """On stdout; what a script does not want goes to stderr."""
    if json_:
        click.echo(json_line(msgspec.to_builtins(granted)))
        return
    for line in env_lines(granted.endpoint) if env else endpoint_lines(granted):
        click.echo(line)
    hint = socket_hint(granted.endpoint)
    if hint is not None:
        click.echo(hint, err=env)


def endpoint_lines(granted: LeaseEnsured) -> list[str]:
    """Everything that a person needs to set up a tool."""
    endpoint, lease = granted.endpoint, granted.lease
    rows = [("base URL", endpoint.base_url)]
    if endpoint.uds is not None:
        rows.append(("Unix socket", endpoint.uds))
    rows += [("header", f"{name}: {value}") for name, value in endpoint.headers.items()]
    rows.append(("model", endpoint.model_identity))
    left = f", for {time_left(lease)}" if lease.bind == "none" else ""
    rows.append(("lease", f"{lease.lease_ref}{left}"))
    return [printable(f"{name:<12} {value}") for name, value in rows]


def env_lines(endpoint: EndpointDescriptor) -> list[str]:
    """What tools made for OpenAI's API read from their environment."""
    return [
        f"OPENAI_BASE_URL={shlex.quote(endpoint.base_url)}",
        f"OPENAI_API_KEY={shlex.quote(api_key(endpoint) or NO_KEY)}",
    ]


def socket_hint(endpoint: EndpointDescriptor) -> str | None:
    """How a tool reaches a Unix socket; None for an endpoint that is a URL."""
    if endpoint.uds is None:
        return None
    path = shlex.quote(endpoint.uds)
    return (
        "This endpoint is a Unix socket, its URL alone leads nowhere: a tool must be told of the"
        f" socket (curl --unix-socket {path} {endpoint.base_url}/models), or ask with --tcp."
    )
