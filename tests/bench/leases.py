"""What leases cost, through a real daemon and a real llama-server: `python tests/bench/leases.py`.

Needs INFERD_LLAMA_SERVER or llama-server on PATH. The journal lies where TMPDIR says: its fsync is
part of most figures.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_daemon.models.demo import demo_model_path
from inferd_proto import FrameReader, FrameType, pack
from tests.support import models
from tests.support.daemon import RunningDaemon
from tests.support.lease_client import (
    ENDLESS_ROUTE,
    Json,
    ask,
    boot,
    complete,
    ensure,
    leasing_daemon,
    start_again,
)
from tests.support.wire_client import WireClient, connected

CALLERS = 64
COLD = 15
KILLS = 5


def main() -> None:
    """Print every figure."""
    server = os.environ.get("INFERD_LLAMA_SERVER") or shutil.which("llama-server")
    if server is None:
        raise SystemExit("no llama-server: set INFERD_LLAMA_SERVER")
    with leasing_daemon('[limits]\nidle_ttl = "forever"\n', server=server) as daemon:
        warm(daemon)
        many(daemon)
    with leasing_daemon('[limits]\nidle_ttl = "forever"\n', server=server) as daemon:
        memory(daemon)
    with leasing_daemon("[limits]\nidle_ttl = 0\n", server=server) as daemon:
        cold(daemon, server)
    killed_server(server)
    killed_daemon(server)


def warm(daemon: RunningDaemon) -> None:
    """Ensures one at a time on a runtime that runs, by its spec."""
    times = []
    with connected(daemon.socket) as client:
        ensure(client, boot())
        for _ in range(500):
            began = time.perf_counter()
            lease = ensure(client, boot())["lease"]
            times.append(time.perf_counter() - began)
            ask(client, "lease.release", lease_ref=lease["lease_ref"])
    show("warm ensure, one at a time", times)


def many(daemon: RunningDaemon) -> None:
    """Ensures from many callers at once, each on a connection of its own."""
    for seconds in (0.5, 3.0):  # the first one warms up
        done = sum(hammer(daemon.socket, seconds).values())
    print(f"warm ensure, {CALLERS} callers: {done / seconds:,.0f}/s")


def hammer(path: Path, seconds: float) -> dict[int, int]:
    """Every caller ensures again as soon as it has its answer; leases live for a second."""
    fields = {"wire_version": 1, "id": "e", "op": "lease.ensure", "target": boot(), "ttl_ms": 1000}
    request = pack(FrameType.JSON, json.dumps(fields).encode())
    counts = dict.fromkeys(range(CALLERS), 0)
    with selectors.DefaultSelector() as selector:
        sockets = []
        for number in range(CALLERS):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            sock.sendall(request)
            selector.register(sock, selectors.EVENT_READ, (number, FrameReader()))
            sockets.append(sock)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(0.1):
                number, reader = key.data
                sock = sockets[number]
                reader.feed(sock.recv(65_536))
                while (frame := reader.next()) is not None:
                    assert b'"result"' in (frame.payload or b"")[:40], frame.payload
                    counts[number] += 1
                    sock.sendall(request)
        for sock in sockets:
            sock.close()
    return counts


def memory(daemon: RunningDaemon) -> None:
    """What a thousand live leases add to the daemon."""
    with connected(daemon.socket) as client:
        for _ in range(50):
            lease = ensure(client, boot())["lease"]
            ask(client, "lease.release", lease_ref=lease["lease_ref"])
        before = daemon.rss_kib
        for number in range(1000):
            ensure(client, boot(), owner_ref=f"owner-{number}", ttl_ms=600_000)
        print(f"1,000 live leases: {(daemon.rss_kib - before) / 1024:.1f} MiB")


def cold(daemon: RunningDaemon, server: str) -> None:
    """From nothing to an endpoint, against the server's own time to /health 200."""
    own = [own_time(server) for _ in range(COLD)]
    show("llama-server's own time to /health 200", own)
    times = []
    with connected(daemon.socket) as client:
        for _ in range(COLD):
            began = time.perf_counter()
            lease = ensure(client, boot())["lease"]
            times.append(time.perf_counter() - began)
            ask(client, "lease.release", lease_ref=lease["lease_ref"])
            while ask(client, "runtime.get", instance_key=lease["instance_key"])["pid"]:
                time.sleep(0.01)
    show("cold ensure", times)
    above = statistics.median(times) - statistics.median(own)
    print(f"cold ensure above the server's own time: {above * 1e3:.1f} ms")


def own_time(server: str) -> float:
    """One start without the daemon."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s.sock"
        argv = [server, "--model", str(demo_model_path()), "--ctx-size", "512", "--threads", "1"]
        argv += ["--parallel", "1", "--host", path]
        began = time.perf_counter()
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not healthy(path):
            time.sleep(0.0005)
        took = time.perf_counter() - began
        process.kill()
        process.wait()
        return took


def healthy(path: str) -> bool:
    """Whether a server on a Unix socket answers 200."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 200 " in sock.recv(64)
        except OSError:
            return False


@contextmanager
def endless_daemon(server: str) -> Iterator[RunningDaemon]:
    """A daemon whose route writes without an end."""
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "endless.gguf"
        models.build_generate_model(model, layers=1, feed_forward=64)
        config = ENDLESS_ROUTE.format(model=model, idle_ttl="forever")
        with leasing_daemon(config, server=server) as daemon:
            yield daemon


def killed_server(server: str) -> None:
    """SIGKILL in mid-stream: until the one error, and until the runtime is ready again."""
    errors, ready = [], []
    for _ in range(KILLS):
        with endless_daemon(server) as daemon:
            error_s, ready_s = kill_in_mid_stream(daemon)
        errors.append(error_s)
        ready.append(ready_s)
    show("server killed in mid-stream: error after", errors)
    show("server killed in mid-stream: ready again after", ready)


def kill_in_mid_stream(daemon: RunningDaemon) -> tuple[float, float]:
    """Seconds to the error, and to the next process's readiness."""
    with connected(daemon.socket) as client, connected(daemon.socket) as other:
        lease = ensure(other, "endless")["lease"]
        key = lease["instance_key"]
        client.generate("g", model="endless")
        client.hear()
        pid = ask(other, "runtime.get", instance_key=key)["pid"]
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        end = client.hear_end("g")
        error_s = time.perf_counter() - began
        assert end["code"] == "backend_unavailable", end
        await_ready(other, key, pid)
        assert ask(other, "lease.get", lease_ref=lease["lease_ref"])["left_ms"] > 0
        return error_s, time.perf_counter() - began


def await_ready(client: WireClient, key: str, former: int) -> None:
    """Until another process serves."""
    while True:
        runtime: Json = ask(client, "runtime.get", instance_key=key)
        if runtime["pid"] not in (None, former) and runtime["state"] == "ready":
            return
        time.sleep(0.002)


def killed_daemon(server: str) -> None:
    """SIGKILL of the daemon with leases, then a start: until the leases are listed, and answer."""
    with leasing_daemon("", server=server) as daemon:
        with connected(daemon.socket) as client:
            ensured = ensure(client, boot(), bind="none")
            for _ in range(200):
                ensure(client, boot(), bind="none")
            daemon.process.kill()
            daemon.process.wait()
        began = time.perf_counter()
        start_again(daemon, server)
        with connected(daemon.socket) as client:
            restored = len(ask(client, "lease.list")["leases"])
            listed = time.perf_counter() - began
            while not answers(ensured["endpoint"]):
                time.sleep(0.005)
        print(f"daemon killed: {restored} leases back after {listed * 1e3:.0f} ms,", end=" ")
        print(f"the endpoint answers after {(time.perf_counter() - began) * 1e3:.0f} ms")
        daemon.stop()


def answers(endpoint: Json) -> bool:
    """Whether a completion succeeds."""
    try:
        return complete(endpoint).status == 200
    except OSError:
        return False


def show(what: str, times: list[float]) -> None:
    """Median and the slow end, in milliseconds."""
    times = sorted(times)
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    print(f"{what}: p50 {statistics.median(times) * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
