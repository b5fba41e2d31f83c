"""What a daemon leaves on the machine: processes, socket files, listening ports."""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.support.daemon import RunningDaemon
from tests.support.lease_client import Json

LISTENING = "0A"


def wrong_traces(daemon: RunningDaemon, runtimes: list[Json]) -> list[str]:
    """Where there is more or less than `runtimes`, which it lists, account for."""
    alive = [one for one in runtimes if one["pid"] is not None]
    addresses = {one["endpoint"] for one in alive}
    sockets = {address for address in addresses if address.startswith("/")}
    found = set(daemon.processes())
    files = {str(path) for path in daemon.directory.rglob("*") if path.is_socket()}
    own = {str(daemon.socket), str(daemon.socket.with_name("admin.sock"))}
    ports = {int(address.rpartition(":")[2]) for address in addresses - sockets}
    pairs: list[tuple[str, set[int] | set[str], set[int] | set[str]]] = [
        ("processes", found, {daemon.pid, *(one["pid"] for one in alive)}),
        # A server that is still starting has not made its own yet.
        ("socket files too many", files - sockets - own, set()),
        ("sockets that are missing", own - files, set()),
        ("ports too many", listening_ports(found) - ports, set()),
    ]
    return [f"{what}: {seen}, not {due}" for what, seen, due in pairs if seen != due]


def listening_ports(pids: Iterable[int]) -> set[int]:
    """The TCP ports on which one of these processes listens."""
    ports: dict[str, int] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                ports[f"socket:[{fields[9]}]"] = int(fields[1].rpartition(":")[2], 16)
    found: set[int] = set()
    for pid in pids:
        try:
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                found.add(ports[os.readlink(descriptor)])
            except (OSError, KeyError):
                continue
    return found
