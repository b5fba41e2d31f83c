"""Random SIGKILLs of the daemon and its servers under load: `python tests/bench/kills.py [CYCLES]`.

Fails where anything is left that should not be: a process, a socket file, a lease, or a lease that
was acknowledged and is lost. Needs INFERD_LLAMA_SERVER or llama-server on PATH.
"""

import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import (
    Refused,
    ask,
    boot,
    ensure,
    leases,
    leasing_daemon,
    runtimes,
    start_again,
)
from tests.support.processes import is_alive
from tests.support.wire_client import WireClient, connected

CONFIG = """
[limits]
max_runtimes = 3
idle_ttl = "0.5s"
[backends.demo]
kind = "llama_server"
model = "demo"
threads = 1
[routes.demo]
backends = ["demo"]
"""
CALLERS = 4
SEED = 7


class Ledger:
    """What the daemon has acknowledged: the leases without a connection, and those released."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.granted: set[str] = set()
        self.released: set[str] = set()
        self.uncertain: set[str] = set()
        self.answers = 0
        self.errors = 0


def main() -> None:
    """Exit status 1 with the reason where anything is wrong."""
    server = os.environ.get("INFERD_LLAMA_SERVER") or shutil.which("llama-server")
    if server is None:
        raise SystemExit("no llama-server: set INFERD_LLAMA_SERVER")
    cycles = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    chance = random.Random(SEED)
    ledger = Ledger()
    over = threading.Event()
    with leasing_daemon(CONFIG, server=server) as daemon:
        threads = [
            threading.Thread(target=load, args=(daemon, ledger, over, number))
            for number in range(CALLERS)
        ]
        for thread in threads:
            thread.start()
        slowest = 0.0
        daemons = 0
        for _ in range(cycles):
            time.sleep(chance.uniform(0.05, 0.6))
            if chance.random() < 0.5:
                daemons += 1
                slowest = max(slowest, kill_daemon(daemon, server))
            else:
                kill_a_server(daemon, chance)
        over.set()
        for thread in threads:
            thread.join()
        check_end(daemon, ledger)
        print(f"{cycles} kills, {daemons} of the daemon (listening again within {slowest:.2f} s)")
        print(f"{ledger.answers} requests answered, {ledger.errors} failed; nothing is left")
        assert daemon.process.poll() is None, daemon.log
        daemon.stop()


def load(daemon: RunningDaemon, ledger: Ledger, over: threading.Event, number: int) -> None:
    """Ensure, ask, release, without a pause; whatever breaks is tried anew."""
    chance = random.Random(number)
    while not over.is_set():
        try:
            with connected(daemon.socket, timeout_s=5) as client:
                while not over.is_set():
                    one_step(client, ledger, chance)
        except (OSError, EOFError):
            ledger.errors += 1
            time.sleep(0.02)


def one_step(client: WireClient, ledger: Ledger, chance: random.Random) -> None:
    """One lease or one generation."""
    if chance.random() < 0.5:
        client.generate("g", model="demo", max_tokens=chance.choice((2, 50)))
        failed = client.hear_end("g")["type"] == "error"
        ledger.errors += failed
        ledger.answers += not failed
        return
    bind = chance.choice(("none", "connection"))
    try:
        lease = ensure(client, boot(ctx_size=chance.choice((256, 512))), bind=bind, ttl_ms=600_000)
    except Refused:
        ledger.errors += 1
        return
    ref = lease["lease"]["lease_ref"]
    with ledger.lock:
        if bind == "none":
            ledger.granted.add(ref)
    if chance.random() < 0.7:
        with ledger.lock:
            ledger.uncertain.add(ref)
        try:
            ask(client, "lease.release", lease_ref=ref)
        except Refused:
            return
        with ledger.lock:
            ledger.released.add(ref)


def kill_daemon(daemon: RunningDaemon, server: str) -> float:
    """SIGKILL and a new start; seconds until that listens."""
    servers = [pid for pid in daemon.processes() if pid != daemon.pid]
    daemon.process.kill()
    daemon.process.wait()
    wait_until(lambda: not any(map(is_alive, servers)), 1.0, "the end of the daemon's servers")
    began = time.monotonic()
    start_again(daemon, server)
    return time.monotonic() - began


def kill_a_server(daemon: RunningDaemon, chance: random.Random) -> None:
    """SIGKILL of one server, if there is any."""
    servers = [pid for pid in daemon.processes() if pid != daemon.pid]
    if servers:
        try:
            os.kill(chance.choice(servers), signal.SIGKILL)
        except ProcessLookupError:
            return


def check_end(daemon: RunningDaemon, ledger: Ledger) -> None:
    """Raises AssertionError that names what is wrong."""
    with connected(daemon.socket) as client:
        live = set(leases(client))
        lost = ledger.granted - ledger.uncertain - live
        assert not lost, f"acknowledged and lost: {lost}"
        undead = live & ledger.released
        assert not undead, f"released and still there: {undead}"
        for ref in live:
            ask(client, "lease.release", lease_ref=ref)
        wait_until(
            lambda: not any(runtime["pid"] for runtime in runtimes(client)), 10, "idle runtimes"
        )
        assert leases(client) == []
    assert daemon.processes() == [daemon.pid]
    sockets = list(Path(daemon.socket.parent).rglob("engine.sock"))
    assert not sockets, sockets
    size = sum(path.stat().st_size for path in daemon.directory.rglob("journal*"))
    assert size < 4 << 20, size


if __name__ == "__main__":
    main()
