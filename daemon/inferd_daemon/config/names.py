"""Names that must exist, and names that collide, in the tables as they were parsed.

Pure. Reads what has the right shape and passes over the rest: its mistakes are told elsewhere.
"""

from collections.abc import Iterator, Mapping
from typing import cast

from .lines import Path

Table = Mapping[str, object]
Mistakes = Iterator[tuple[Path, str]]


def broken_names(data: Table) -> Mistakes:
    """The names in `data`, a whole configuration, that do not meet."""
    routes = _table(data.get("routes", {}))
    backends = _table(data.get("backends", {}))
    for name, route in (routes or {}).items():
        if isinstance(route, dict) and backends is not None:
            yield from _backends(name, route.get("backends"), backends)
    if routes is None:
        return
    taken = dict.fromkeys(routes, "a route")
    for name, route in routes.items():
        aliases = route.get("aliases") if isinstance(route, dict) else None
        for alias in _texts(aliases):
            if alias in taken:
                yield ("routes", name, "aliases"), f"{alias!r} is {taken[alias]} already"
            taken.setdefault(alias, f"an alias of {name!r}")
    for name, backend in (backends or {}).items():
        if isinstance(backend, dict) and backend.get("kind") == "agent":
            path: Path = ("backends", name, "upstream")
            yield from _upstream(path, backend.get("upstream"), taken, routes, backends or {})
    for name, agent in (_table(data.get("agents")) or {}).items():
        if isinstance(agent, dict):
            path = ("agents", name, "upstream")
            yield from _upstream(path, agent.get("upstream"), taken, routes, backends or {})
    default = data.get("default_route")
    if isinstance(default, str) and default not in taken:
        yield ("default_route",), f"no route {default!r}; there is {_names(routes)}"


def _backends(route: str, entries: object, there: Table) -> Mistakes:
    named: set[str] = set()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        path = ("routes", route, "backends", index)
        for backend in [entry] if isinstance(entry, str) else _texts(entry):
            if backend not in there:
                yield path, f"no backend {backend!r}; there is {_names(there)}"
            elif backend in named:
                yield path, f"{backend!r} is named already"
            named.add(backend)


def _upstream(
    path: Path, upstream: object, taken: Table, routes: Table, backends: Table
) -> Mistakes:
    """It must be a route of models: an agent that runs on agents would never end."""
    if not isinstance(upstream, str) or not upstream.strip():
        return
    if upstream not in taken:
        yield path, f"no route {upstream!r}; there is {_names(routes)}"
        return
    for route, table in routes.items():
        if isinstance(table, dict) and upstream in (route, *_texts(table.get("aliases"))):
            entries = table.get("backends")
            for entry in entries if isinstance(entries, list) else []:
                for backend in [entry] if isinstance(entry, str) else _texts(entry):
                    kind = backends.get(backend)
                    if isinstance(kind, dict) and kind.get("kind") == "agent":
                        yield path, f"route {upstream!r} is answered by an agent itself"
                        return


def _table(value: object) -> Table | None:
    return cast("Table", value) if isinstance(value, dict) else None


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _names(table: Table) -> str:
    return ", ".join(table) if table else "none"
