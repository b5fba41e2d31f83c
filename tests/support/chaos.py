"""A daemon under load whose processes are killed at random, and what must hold after each time.

    with Chaos(server, seed=7) as chaos:
        for _ in range(50):
            chaos.cycle()

Whatever does not hold is in `chaos.complaints.wrong`; figures are in `chaos.figures`. The seed
fixes what is done, not how the machine interleaves it.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import models
from tests.support.daemon import patience, temporary_directory, wait_until
from tests.support.lease_client import (
    Json,
    Refused,
    ask,
    boot,
    complete,
    ensure,
    launch_again,
    leasing_daemon,
    runtimes,
    start_again,
)
from tests.support.lease_ledger import LeaseLedger, Span
from tests.support.lease_load import (
    EXCUSED,
    HANGS_S,
    Complaints,
    EndpointStreams,
    Owner,
    RouteStreams,
    Worker,
)
from tests.support.processes import is_alive
from tests.support.traces import wrong_traces
from tests.support.wire_client import WireClient, connected

HEALTH_MS = 1000
"""A hung server is noticed within two of these."""
CONFIG = f"""
[limits]
idle_ttl = "0.3s"
[daemon]
drain_timeout_s = 1.0
[backends.endless]
kind = "llama_server"
model = "{{model}}"
threads = 1
parallel = 4
health_interval_ms = {HEALTH_MS}
[backends.endless.breaker]
failures = 0
[routes.endless]
backends = ["endless"]
"""
GONE_S = 2.0
"""The kernel ends what died with the daemon at once, and the daemon what is idle after 0.3 s."""
READY_S = 10.0
"""On an idle machine."""
VICTIM = """
import sys
from pathlib import Path
from tests.support.lease_client import ensure
from tests.support.traces import wrong_traces
from tests.support.wire_client import WireClient
client = WireClient(Path(sys.argv[1]))
client_too = WireClient(Path(sys.argv[1]))
print(ensure(client, "endless", ttl_ms=None, owner_ref="victim")["lease"]["lease_ref"], flush=True)
client_too.generate("v", model="endless")
while True:
    client_too.hear()
"""


class Chaos:
    """A daemon, its load, and the one that kills. A context manager; it ends everything."""

    def __init__(self, server: str | Path, seed: int, *, owners: int = 3, streams: int = 2) -> None:
        self.seed = seed
        self.complaints = Complaints()
        self.ledger = LeaseLedger()
        self.figures: dict[str, list[float]] = defaultdict(list)
        """Seconds, by what was timed."""
        self._server = server
        self._chance = random.Random(seed)
        self._owners, self._streams = owners, streams
        self._stack = contextlib.ExitStack()
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            model = directory / "endless.gguf"
            models.build_generate_model(model, layers=1, feed_forward=64)
            config = CONFIG.format(model=model)
            self.daemon = stack.enter_context(leasing_daemon(config, server=self._server))
            stack.callback(self._end_workers)
            self._workers = self._make_workers(str(model))
            for worker in self._workers:
                worker.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    def _make_workers(self, model: str) -> list[Worker]:
        common = {"threads": 1, "health_interval_ms": HEALTH_MS, "model": model}
        targets: list[Json | str] = [
            "endless",
            boot(**common),
            boot(**common, port=0),
            boot(**common, ctx_size=1024),
        ]
        path, seed, told = self.daemon.socket, self.seed, self.complaints
        workers: list[Worker] = [
            Owner(f"owner{i}", path, seed, told, self.ledger, targets) for i in range(self._owners)
        ]
        for i in range(self._streams):
            workers.append(RouteStreams(f"stream{i}", path, seed, told, "endless"))
            workers.append(EndpointStreams(f"straight{i}", path, seed, told, self.ledger.held))
        return workers

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.end()

    # -- one cycle ---------------------------------------------------------------------------

    def cycle(self) -> str:
        """Let the load run, kill something, and look; what was done."""
        time.sleep(self._chance.uniform(0.05, 0.8))
        deed = self._chance.choice(DEEDS)
        began = time.monotonic()
        try:
            deed(self)
        except (AssertionError, OSError, EOFError, Refused) as error:
            self.complaints.complain(f"{deed.__name__}: {error!r}")
        self._pause()
        try:
            with connected(self.daemon.socket, HANGS_S) as client:
                self._look_at_leases(client)
                self._look_at_endpoints(deed.__name__, began)
                self._look_at_leases(client)
            self._look_at_traces()
        finally:
            for worker in self._workers:
                worker.resume()
        return deed.__name__

    def _pause(self) -> None:
        for worker in self._workers:
            worker.pause()

    def _look_at_leases(self, client: WireClient) -> None:
        with contextlib.suppress(AssertionError):  # the ledger tells which
            wait_until(lambda: not self.ledger.outliving(_refs(client)), GONE_S, "unbound leases")
        asked = time.monotonic()
        leases = ask(client, "lease.list")["leases"]
        made = Span(asked, time.monotonic())
        listed = [one for one in leases if one["owner_ref"].startswith("owner")]
        for text in self.ledger.settle(listed, made):
            self.complaints.complain(text)

    def _look_at_endpoints(self, deed: str, began: float) -> None:
        """Each that is leased answers again, at its address and with its key.

        One whose lease runs out meanwhile need not: what is idle is stopped.
        """
        addresses = self._held_endpoints()
        for address, endpoint in addresses.items():
            while address in self._held_endpoints():
                try:
                    answered = str(status := complete(endpoint).status)
                    if status == 200:
                        break
                except (OSError, HTTPException) as error:
                    answered = repr(error)
                if time.monotonic() - began > patience(READY_S):
                    self.complaints.complain(f"{address} answers {answered} after {deed}")
                    return
                time.sleep(0.005)
        if addresses:
            self.figures[f"{deed}: endpoints answer again"].append(time.monotonic() - began)

    def _held_endpoints(self) -> dict[str, Json]:
        endpoints = [held.endpoint for held in self.ledger.held()]
        return {str(endpoint["uds"] or endpoint["base_url"]): endpoint for endpoint in endpoints}

    def _look_at_traces(self) -> None:
        """No process, socket file or port but those of runtimes that are there."""
        with connected(self.daemon.socket, HANGS_S) as client:
            wrong = ["not looked at yet"]

            def in_order() -> bool:
                wrong[:] = wrong_traces(self.daemon, runtimes(client))
                return not wrong

            with contextlib.suppress(AssertionError):
                wait_until(in_order, GONE_S, "order")
            for text in wrong:
                self.complaints.complain(text)

    # -- deeds ---------------------------------------------------------------------------------

    def kill_daemon(self) -> None:
        """SIGKILL, then start it again."""
        children = self._children()
        self._kill()
        self._expect_gone(children)
        self._start("started after SIGKILL")

    def kill_daemon_again_and_again(self) -> None:
        """Killed while it starts, and while it starts its runtimes."""
        for _ in range(3):
            self._kill()
            self._launch()
            time.sleep(self._chance.uniform(0, 0.8))
        self.kill_daemon()

    def kill_daemon_and_servers(self) -> None:
        """Everything at once."""
        for pid in self._children():
            _signal(pid, signal.SIGKILL)
        self.kill_daemon()

    def stop_servers_and_kill_daemon(self) -> None:
        """Stopped processes die as well."""
        for pid in self._children():
            _signal(pid, signal.SIGSTOP)
        self.kill_daemon()

    def stop_daemon_in_order(self) -> None:
        """SIGTERM, then start it again."""
        self.ledger.another_life()
        if (status := self.daemon.stop()) != 0:
            self.complaints.complain(f"the daemon ended with {status}")
        self.ledger.another_life()
        if left := self.daemon.processes():
            self.complaints.complain(f"{left} outlive an orderly stop")
        self._start("started after SIGTERM")

    def kill_server(self) -> None:
        """One of them, in mid-stream; its request is told."""
        with connected(self.daemon.socket, HANGS_S) as client:
            lease = ensure(client, "endless", ttl_ms=None, owner_ref="killer")["lease"]
            with connected(self.daemon.socket, HANGS_S) as streaming:
                streaming.generate("k", model="endless")
                if streaming.hear()["type"] != "frame":
                    return
                key = lease["instance_key"]
                if (pid := _ready(client, key)) is None:
                    return
                _signal(pid, signal.SIGKILL)
                killed = time.monotonic()
                end = streaming.hear_end("k")
                self.figures["error frame after SIGKILL"].append(time.monotonic() - killed)
                if end.get("code") not in EXCUSED:
                    self.complaints.complain(f"a stream whose server was killed ended with {end}")
                wait_until(lambda: _ready(client, key) not in (None, pid), READY_S, "a new server")
                self.figures["server ready after SIGKILL"].append(time.monotonic() - killed)

    def kill_servers(self) -> None:
        """All of them."""
        for pid in self._children():
            _signal(pid, signal.SIGKILL)

    def stop_server(self) -> None:
        """SIGSTOP: health checks notice, and it is replaced; one that is held, at once."""
        with connected(self.daemon.socket, HANGS_S) as client:
            lease = ensure(client, "endless", ttl_ms=None, owner_ref="killer")["lease"]
            pid = _ready(client, lease["instance_key"])
            if pid is None:
                return
            _signal(pid, signal.SIGSTOP)
            began = time.monotonic()
            wait_until(lambda: not is_alive(pid), READY_S, "the end of a hung server")
            self.figures["hung server ended"].append(time.monotonic() - began)
            for other in runtimes(client):
                if other["state"] == "ready" and other["instance_key"] != lease["instance_key"]:
                    _signal(other["pid"], signal.SIGSTOP)

    def kill_client(self) -> None:
        """A process that streams and holds a bound lease."""
        command = [sys.executable, "-c", VICTIM, str(self.daemon.socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            ref = victim.stdout.readline().strip()
            time.sleep(self._chance.uniform(0, 0.1))
            victim.kill()
        killed = time.monotonic()
        with connected(self.daemon.socket, HANGS_S) as client:
            wait_until(lambda: ref not in _refs(client), GONE_S, f"the end of {ref!r}")
        self.figures["lease of a killed client ended"].append(time.monotonic() - killed)

    # -- the daemon ----------------------------------------------------------------------------

    def finish(self) -> None:
        """End the load and every lease; what was held for it goes by itself."""
        self._end_workers()
        with connected(self.daemon.socket, HANGS_S) as client:
            self._look_at_leases(client)
            for ref in _refs(client):
                ask(client, "lease.release", lease_ref=ref)
            pids = [one["pid"] for one in runtimes(client)]
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self._children(), READY_S, "the end of idle runtimes")
            if left := self._children():
                self.complaints.complain(f"{left} of {pids} outlive their leases")
            if listed := _refs(client):
                self.complaints.complain(f"{listed} are still listed")
        self._look_at_traces()
        for line in self.daemon.log.splitlines():
            if "Traceback" in line or '"level":"error"' in line:
                self.complaints.complain(line)

    def _children(self) -> list[int]:
        return [pid for pid in self.daemon.processes() if pid != self.daemon.pid]

    def _kill(self) -> None:
        self.ledger.another_life()
        self.daemon.process.kill()
        self.daemon.process.wait()
        # Who left between these two left a daemon that did not see it.
        self.ledger.another_life()

    def _expect_gone(self, pids: list[int]) -> None:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not any(map(is_alive, pids)), 1.0, "the end of orphans")
        if left := [pid for pid in pids if is_alive(pid)]:
            self.complaints.complain(f"{left} outlive their daemon")

    def _launch(self) -> None:
        launch_again(self.daemon, self._server)

    def _start(self, what: str) -> None:
        began = time.monotonic()
        start_again(self.daemon, self._server)
        with connected(self.daemon.socket, HANGS_S) as client:
            ask(client, "status")
            self.figures[what].append(time.monotonic() - began)


DEEDS: list[Callable[[Chaos], None]] = [
    Chaos.kill_daemon,
    Chaos.kill_daemon,
    Chaos.kill_daemon_again_and_again,
    Chaos.kill_daemon_and_servers,
    Chaos.stop_servers_and_kill_daemon,
    Chaos.stop_daemon_in_order,
    Chaos.kill_server,
    Chaos.kill_server,
    Chaos.kill_servers,
    Chaos.stop_server,
    Chaos.kill_client,
]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _refs(client: WireClient) -> list[str]:
    return [lease["lease_ref"] for lease in ask(client, "lease.list")["leases"]]


def _ready(client: WireClient, key: str) -> int | None:
    runtime = ask(client, "runtime.get", instance_key=key)
    pid: int | None = runtime["pid"] if runtime["state"] == "ready" else None
    return pid
