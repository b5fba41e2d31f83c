"""Providers of CLI agents as rows and lines; pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inferd_proto import AgentStatus

from .render import printable
from .tables import new_row, new_table

if TYPE_CHECKING:
    from rich.table import Table

_LOGIN = {True: "yes", False: "no", None: "unknown"}


def agents_table(agents: Sequence[AgentStatus]) -> "Table":
    """One row a provider."""
    table = new_table("AGENT", "FOUND", "VERSION", "LOGIN", "MODELS", "ROUTES", "RUNS", "PUBLISHES")
    for agent in agents:
        new_row(
            table,
            agent.provider,
            "yes" if agent.found else "no",
            agent.version or "",
            _LOGIN[agent.logged_in] if agent.found else "",
            "any" if agent.models is None else ", ".join(agent.models),
            agent.upstream_protocol or "none",
            f"{agent.running}/{agent.max_runs}",
            ", ".join(name for name, has in agent.publication.items() if has),
        )
    return table


def problem_lines(agents: Sequence[AgentStatus]) -> list[str]:
    """Why any cannot work."""
    return [printable(agent.reason) for agent in agents if agent.reason]
