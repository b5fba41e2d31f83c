"""What an upgrade in place costs its clients: how long the socket does not answer, what fails.

    python tests/bench/upgrade.py [--rounds 10] [--connects 1000]

Needs a llama-server (INFERD_LLAMA_SERVER). Writes bytecode to a directory of its own, as an
installation has it, whatever PYTHONDONTWRITEBYTECODE says.
"""

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.e2e.test_upgrade import BOTH, burst, many_files, pids, streaming, upgrades
from tests.support import models
from tests.support.daemon import RunningDaemon, running_daemon, wait_until
from tests.support.lease_client import Json, Refused, ask, boot, ensure
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import connected


class Knocking:
    """Connects and asks for `status`, one after the other, `count` times."""

    def __init__(self, daemon: RunningDaemon, count: int) -> None:
        self.worst_s = 0.0
        self.failed: list[str] = []
        self._daemon = daemon
        self._left = count
        self._lock = threading.Lock()

    def run(self, threads: int = 4) -> threading.Thread:
        """Begin; the thread to join."""
        knocks = [threading.Thread(target=self._knock) for _ in range(threads)]

        def whole() -> None:
            for thread in knocks:
                thread.start()
            for thread in knocks:
                thread.join()

        thread = threading.Thread(target=whole)
        thread.start()
        return thread

    def _knock(self) -> None:
        while True:
            with self._lock:
                if self._left == 0:
                    return
                self._left -= 1
            begun = time.perf_counter()
            try:
                with connected(self._daemon.socket, 30) as client:
                    ask(client, "status")
            except (OSError, EOFError, Refused) as error:
                self.failed.append(repr(error))
            self.worst_s = max(self.worst_s, time.perf_counter() - begun)
            time.sleep(0.002)


class WatchedStream:
    """Completions straight from an endpoint, read by a process that does nothing else."""

    def __init__(self, endpoint: Json) -> None:
        command = [sys.executable, __file__, "--read"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(endpoint) + "\n")
        self._process.stdin.flush()

    def stop(self) -> list[float]:
        """The times of the chunks; NaN between two answers."""
        told, _ = self._process.communicate(timeout=30)  # closes its standard input
        times: list[float] = json.loads(told)
        return times


def read_streams() -> None:
    """The reading process."""
    endpoint = json.loads(sys.stdin.readline())
    times: list[float] = []
    while True:
        with streaming(endpoint) as chunks:
            times.append(float("nan"))  # between two answers there is a prompt, not a gap
            for at, line in chunks:
                if line != b"\n":
                    times.append(at)
                if len(times) % 64 == 0 and select.select([sys.stdin], [], [], 0)[0]:
                    print(json.dumps(times))
                    return


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--connects", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.read:
        read_streams()
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as name:
        environ = {
            "PYTHONPYCACHEPREFIX": name,
            "INFERD_LLAMA_SERVER": str(llama_server_path()),
        }
        with running_daemon(config=BOTH, environ=environ) as daemon:
            wait_until(lambda: "runtime ready" in daemon.events(), 30, "the worker")
            measure_quiet(daemon, arguments.rounds)
            measure_knocked(daemon, arguments.rounds, arguments.connects)
            measure_burst(daemon, arguments.connects)
            measure_streamed(daemon, arguments.rounds, Path(name) / "endless.gguf")


def go_over(daemon: RunningDaemon) -> None:
    """One upgrade, from the signal to the next self."""
    before = upgrades(daemon)
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: upgrades(daemon) > before, 60, "an upgrade")


def measure_quiet(daemon: RunningDaemon, rounds: int) -> None:
    """One client that asks again and again, and nothing else to do for the machine."""
    with connected(daemon.socket) as client:
        before = pids(client)
    worst = [slowest_answer(daemon) * 1000 for _ in range(rounds)]
    gaps = [line["gap_ms"] for line in daemon.log_lines() if line["event"] == "upgraded"]
    with connected(daemon.socket) as client:
        kept = pids(client) == before
    print(f"gap by the daemon's own account, ms: {describe(gaps[1:])}")
    print(f"slowest answer to a client that keeps asking, ms: {describe(worst[1:])}")
    print(f"servers keep their pids: {kept}")


def slowest_answer(daemon: RunningDaemon) -> float:
    """Seconds that the slowest `status` took, each on a new connection, over one upgrade."""
    worst, before = 0.0, None
    while True:
        begun = time.perf_counter()
        with connected(daemon.socket, 30) as client:
            done = ask(client, "status")["upgrades"]
        if before is None:
            before = done
            daemon.process.send_signal(signal.SIGUSR2)
            continue
        worst = max(worst, time.perf_counter() - begun)
        if done > before:
            return worst
        time.sleep(0.002)


def measure_knocked(daemon: RunningDaemon, rounds: int, connects: int) -> None:
    """Many clients at once; upgrades until all of their connects are through."""
    knocking = Knocking(daemon, connects)
    thread = knocking.run()
    done = 0
    while thread.is_alive() and done < rounds:
        go_over(daemon)
        done += 1
    thread.join()
    print(
        f"connects that failed: {len(knocking.failed)} of {connects} over {done} upgrades, "
        f"slowest {knocking.worst_s * 1000:.0f} ms"
    )


def measure_burst(daemon: RunningDaemon, connects: int) -> None:
    """All connects while nobody accepts."""
    with many_files(connects + 1024):
        answered = burst(daemon, connects)
    print(f"connects between two selves that were answered: {answered} of {connects}")


def measure_streamed(daemon: RunningDaemon, rounds: int, model: Path) -> None:
    """A stream straight from an endpoint: its longest pause with upgrades, and without."""
    models.build_generate_model(model, layers=1, feed_forward=64)
    with connected(daemon.socket) as client:
        lease = ensure(client, boot(model=str(model), ctx_size=0), ttl_ms=600_000, bind="none")
    stream = WatchedStream(lease["endpoint"])
    time.sleep(1.0)
    begun = time.monotonic()
    for _ in range(rounds):
        go_over(daemon)
    middle = time.monotonic()
    time.sleep(middle - begun)
    times = stream.stop()
    pauses = [(later, (later - sooner) * 1000) for sooner, later in pairwise(times)]
    during = sorted(pause for at, pause in pauses if begun < at <= middle)
    after = sorted(pause for at, pause in pauses if at > middle)
    print(f"pauses between chunks during upgrades, ms: {describe(during)}")
    print(f"pauses between chunks without any, ms: {describe(after)}")


def describe(figures: list[float]) -> str:
    """Median, high and worst."""
    ordered = sorted(figures)
    high = ordered[int(len(ordered) * 0.99)] if len(ordered) > 100 else ordered[-1]
    median = statistics.median(ordered)
    return f"median {median:.2f}, p99 {high:.2f}, worst {ordered[-1]:.2f} ({len(ordered)})"


if __name__ == "__main__":
    main()
