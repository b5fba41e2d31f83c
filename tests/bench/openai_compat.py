"""What the daemon adds between a Chat Completions upstream and its clients.

    python -m tests.bench.openai_compat backend URL [CONCURRENCY] [SECONDS] [TOKENS]
    python -m tests.bench.openai_compat paced [STREAMS] [PACE_MS] [SECONDS] [ROUNDS]
    python -m tests.bench.openai_compat crowd [STREAMS] [PACE_MS] [TOKENS]
    python -m tests.bench.openai_compat engine LLAMA_SERVER [STREAMS] [TOKENS] [ROUNDS]

`backend`: tokens and requests a second of the backend alone, without the daemon around it. `paced`:
how late tokens are, straight from the upstream and through the daemon, in turns. `crowd`: memory
for each of many streams, and what one reader that stalls costs the others. `engine`: the throughput
of a real llama-server, straight and through the daemon, in turns, and what the daemon uses of the
processor that the engine could have had. No test: it asserts nothing.
"""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from statistics import median

import trio

from inferd_daemon.backends.base import GenerateRequest, Sampling, TextDeltas
from inferd_daemon.backends.openai_compat import OpenAICompatBackend
from inferd_daemon.config import OpenAICompatConfig
from inferd_daemon.models.demo import demo_model_path
from inferd_proto import Message, Text
from tests.support.daemon import RunningDaemon, running_daemon, wait_until
from tests.support.stamped_upstream import stamped_upstream
from tests.support.stream_crowd import Seen, StreamCrowd

CONFIG = """
default_route = "chat"
[daemon]
log_level = "warning"
max_connections = 4096
write_timeout_s = 60
[backends.chat]
kind = "openai_compat"
base_url = "http://127.0.0.1:{port}"
model = "m"
slots = 4000
[routes.chat]
backends = ["chat"]
active_permits = 4000
"""


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)] if ordered else float("nan")


# -- the backend alone ---------------------------------------------------------------------


class Tally:
    """What all tasks together have seen; times in seconds."""

    def __init__(self) -> None:
        self.requests = 0
        self.batches = 0
        self.tokens = 0
        self.first_token_s: list[float] = []


async def run_once(backend: OpenAICompatBackend, tokens: int, tally: Tally) -> None:
    request = GenerateRequest([Message("user", [Text("hi")])], Sampling(max_tokens=tokens))
    started = time.perf_counter()
    first = True
    async with aclosing(backend.generate(request)) as batches:
        async for batch in batches:
            tally.batches += 1
            for event in batch:
                if isinstance(event, TextDeltas):
                    if first:
                        first = False
                        tally.first_token_s.append(time.perf_counter() - started)
                    tally.tokens += len(event.deltas)
    tally.requests += 1


async def measure_backend(url: str, concurrency: int, seconds: float, tokens: int) -> None:
    backend = OpenAICompatBackend("bench", OpenAICompatConfig(base_url=url))
    tally = Tally()
    end = time.perf_counter() + seconds

    async def keep_busy() -> None:
        while time.perf_counter() < end:
            await run_once(backend, tokens, tally)

    wall, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(keep_busy)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await backend.close()
    first = [1000 * value for value in tally.first_token_s]
    print(
        f"conc {concurrency}  {tally.requests / wall:,.0f} req/s  "
        f"{tally.tokens / wall:,.0f} tok/s  {tally.tokens / tally.batches:.1f} tok/batch  "
        f"CPU {cpu / wall:.0%}, {cpu / tally.tokens * 1e6:.1f} us/tok  "
        f"ttft p50 {quantile(first, 0.5):.2f} p99 {quantile(first, 0.99):.2f} ms"
    )


# -- through the daemon --------------------------------------------------------------------


def cpu_s(daemon: RunningDaemon) -> float:
    """What the daemon's own process has used so far."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_kib(daemon: RunningDaemon) -> int:
    """The most resident memory that it has had."""
    return int(Path(f"/proc/{daemon.pid}/status").read_text().partition("VmHWM:")[2].split()[0])


def row(name: str, seen: Seen, wall_s: float, cpu: float | None = None) -> None:
    late, first = ([value / 1000 for value in one] for one in (seen.late_us, seen.first_us))
    used = "" if cpu is None else f"  CPU {cpu / wall_s:.0%}, {cpu / seen.tokens * 1e6:.1f} us/tok"
    print(
        f"{name:7} {seen.tokens / wall_s:8,.0f} tok/s  token late p50 {quantile(late, 0.5):6.2f}"
        f" p99 {quantile(late, 0.99):6.2f} ms  first token p50 {quantile(first, 0.5):6.2f}"
        f" p99 {quantile(first, 0.99):6.2f} ms  errors {seen.errors}{used}",
        flush=True,
    )


def measure_paced(streams: int, pace_ms: float, seconds: float, rounds: int) -> None:
    with stamped_upstream(pace_ms) as port, running_daemon(config=CONFIG.format(port=port)) as it:
        for _ in range(rounds):
            for name, address in (("direct", port), ("daemon", it.socket)):
                with closing(StreamCrowd(address, streams, 256)) as crowd:
                    began, before = time.monotonic(), cpu_s(it)
                    seen = crowd.run(seconds)
                    wall = time.monotonic() - began
                    row(name, seen, wall, None if name == "direct" else cpu_s(it) - before)


def measure_crowd(streams: int, pace_ms: float, tokens: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 65_536), limit))
    with stamped_upstream(pace_ms) as port, running_daemon(config=CONFIG.format(port=port)) as it:
        with closing(StreamCrowd(it.socket, 1, 16)) as crowd:
            crowd.run(0, once=True)
        for stalled in (0, 1):
            before_kib = it.rss_kib
            Path(f"/proc/{it.pid}/clear_refs").write_text("5")  # the peak begins anew
            with (
                closing(StreamCrowd(it.socket, stalled, 1_000_000)) as stalling,
                closing(StreamCrowd(it.socket, streams, tokens)) as crowd,
            ):
                stalling.ask_only()
                began, before = time.monotonic(), cpu_s(it)
                seen = crowd.run(0, once=True)
                wall = time.monotonic() - began
                row(f"{stalled} stall", seen, wall, cpu_s(it) - before)
                grown = peak_kib(it) - before_kib
                print(
                    f"        {streams} streams, {seen.tokens} of {streams * tokens} tokens,"
                    f" {grown / streams:.1f} KiB each at the peak"
                )


# -- a real engine -------------------------------------------------------------------------


@contextmanager
def llama_server(program: str, streams: int) -> Iterator[int]:
    """The port of one with the demo model."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [program, "-m", str(demo_model_path()), "--port", str(port), "-np", str(streams)]
    command += ["-c", str(1024 * streams), "--log-disable", "--no-webui"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ready() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                sock.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return sock.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    try:
        wait_until(ready, 30, "a llama-server that serves")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def measure_engine(program: str, streams: int, tokens: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {"direct": [], "daemon": []}
    used: list[float] = []
    with (
        llama_server(program, streams) as port,
        running_daemon(config=CONFIG.format(port=port)) as it,
    ):
        for _ in range(rounds):
            for name, address in (("direct", port), ("daemon", it.socket)):
                with closing(StreamCrowd(address, streams, tokens)) as crowd:
                    began, before = time.monotonic(), cpu_s(it)
                    seen = crowd.run(2.0)
                    rates[name].append(seen.deltas / (time.monotonic() - began))
                    if name == "daemon":
                        used.append((cpu_s(it) - before) / seen.deltas * 1e6)
    for name, values in rates.items():
        print(f"{name:7} {median(values):10,.0f} tok/s  of {sorted(map(round, values))}")
    share = median(rates["daemon"]) / median(rates["direct"])
    print(f"daemon / direct {share:.3f}  daemon's CPU {median(used):.1f} us/tok")


def main(what: str, *given: str) -> None:
    match what:
        case "backend":
            url, concurrency, seconds, tokens = (*given, *("8", "3", "256")[len(given) - 1 :])
            trio.run(measure_backend, url, int(concurrency), float(seconds), int(tokens))
        case "paced":
            streams, pace, seconds, rounds = (*given, *("64", "1", "3", "3")[len(given) :])
            measure_paced(int(streams), float(pace), float(seconds), int(rounds))
        case "crowd":
            streams, pace, tokens = (*given, *("1000", "100", "100")[len(given) :])
            measure_crowd(int(streams), float(pace), int(tokens))
        case "engine":
            program, streams, tokens, rounds = (*given, *("4", "128", "7")[len(given) - 1 :])
            measure_engine(program, int(streams), int(tokens), int(rounds))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["help"]))
