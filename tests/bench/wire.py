"""What the daemon costs with the mock backend: memory, first token, tokens a second.

    python tests/bench/wire.py

The clients are Python in threads of one process and share the machine with the daemon: their
tokens a second are a floor, not the daemon's limit. No test: it asserts nothing.
"""

import resource
import sys
import threading
import time
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.wire_client import WireClient, connected

IDLE_CONNECTIONS = 1000
SEQUENTIAL = 10_000
TOKENS = 256
SECONDS = 3.0


def serve_one(daemon: RunningDaemon) -> None:
    """A client that comes, asks for one token, and goes."""
    with connected(daemon.socket) as client:
        client.generate(max_tokens=1)
        client.hear_end()


def idle_connections(daemon: RunningDaemon) -> float:
    """KiB for each of `IDLE_CONNECTIONS` clients that have been answered and stay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE_CONNECTIONS + 200), hard))
    before = daemon.rss_kib
    clients = [WireClient(daemon.socket) for _ in range(IDLE_CONNECTIONS)]
    for client in clients:
        client.generate(max_tokens=1)
        client.hear_end()
    grown = daemon.rss_kib - before
    for client in clients:
        client.sock.close()
    return grown / IDLE_CONNECTIONS


def sequential_connections(daemon: RunningDaemon) -> tuple[int, float]:
    """KiB that `SEQUENTIAL` clients in a row leave, and how many came a second."""
    before, started = daemon.rss_kib, time.perf_counter()
    for _ in range(SEQUENTIAL):
        serve_one(daemon)
    return daemon.rss_kib - before, SEQUENTIAL / (time.perf_counter() - started)


class Load:
    """Clients that ask again as soon as they are answered, for `SECONDS`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._until = 0.0
        self._lock = threading.Lock()
        self.received = 0
        self.first_ms: list[float] = []

    def run(self, connections: int) -> "Load":
        """Blocks until all are done."""
        self._until = time.perf_counter() + SECONDS
        threads = [threading.Thread(target=self._client) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self

    def _client(self) -> None:
        """Tells the end of an answer by the bytes of its last frame: parsing would measure us."""
        first_ms: list[float] = []
        received = 0
        with connected(self._path) as client:
            while time.perf_counter() < self._until:
                started = time.perf_counter()
                client.generate(max_tokens=TOKENS)
                data = client.sock.recv(1 << 18)
                first_ms.append((time.perf_counter() - started) * 1000)
                while b'"done"' not in data[-300:]:
                    data = data[-300:] + client.sock.recv(1 << 18)
                received += TOKENS
        with self._lock:
            self.received += received
            self.first_ms += first_ms


def row(name: str, value: str) -> None:
    """One line of the table."""
    print(f"{name:<42}{value:>16}")


def main() -> None:
    """Prints the table."""
    with running_daemon("--backend", "mock") as daemon:
        row("idle", f"{daemon.rss_kib / 1024:.1f} MiB")
        for _ in range(500):
            serve_one(daemon)
        row("after 500 clients", f"{daemon.rss_kib / 1024:.1f} MiB")
        row(f"each of {IDLE_CONNECTIONS} idle connections", f"{idle_connections(daemon):.1f} KiB")
        grown, rate = sequential_connections(daemon)
        row(f"{SEQUENTIAL} connections in a row leave", f"{grown:+d} KiB")
        row("connections a second, one after the other", f"{rate:.0f}")
        for connections in (1, 8):
            load = Load(daemon.socket).run(connections)
            row(f"tokens a second, {connections} busy", f"{load.received / SECONDS:,.0f}")
            tail = quantiles(load.first_ms, n=100)[98]
            row("  first token p50, p99", f"{median(load.first_ms):.2f}, {tail:.2f} ms")
        row("at the end", f"{daemon.rss_kib / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
