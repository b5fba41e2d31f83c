"""The HTTP front beside what it stands in front of: streams, short answers, the first token.

    python tests/bench/http_front.py LOAD FASTSSE [LITELLM_URL [LITELLM_KEY]]

LOAD and FASTSSE are the load generator and the upstream that does no inference. All rows of one run
share the machine; each asks the upstream directly, through a real daemon, and through LiteLLM's
proxy where one runs already, with a model `fast` for that upstream on UPSTREAM_PORT.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.daemon import RunningDaemon, running_daemon

UPSTREAM_PORT = 18_190
SECONDS = 3.0
CONFIG = """
default_route = "fast"
[http]
listen = "127.0.0.1:{port}"
[backends.fast]
kind = "openai_compat"
base_url = "http://127.0.0.1:{upstream}"
model = "fast"
slots = 64
[routes.fast]
backends = ["fast"]
"""


class Row(NamedTuple):
    """What the load generator is told."""

    name: str
    connections: int
    tokens: int
    stream: bool


ROWS = (
    Row("200 tokens streamed, 8 connections", 8, 200, True),
    Row("200 tokens streamed, 1 connection", 1, 200, True),
    Row("20 tokens in one object, 8 connections", 8, 20, False),
)


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def upstream(fastsse: str) -> Iterator[str]:
    """The upstream's address."""
    address = f"127.0.0.1:{UPSTREAM_PORT}"
    process = subprocess.Popen([fastsse, address])
    try:
        time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait()


def run_load(load: str, address: str, row: Row, key: str = "") -> str:
    """The generator's own line."""
    command = [load, "http", address, "/v1/chat/completions", str(row.connections), str(SECONDS)]
    command += [str(row.tokens), key, "fast", "stream" if row.stream else "nostream"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


class Peak:
    """The largest memory of the daemon while the block runs, and the CPU that it took."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.rss_kib = 0
        self.cpu_s = 0.0

    def __enter__(self) -> "Peak":
        self.cpu_s = -self._cpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cpu_s += self._cpu()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.rss_kib = max(self.rss_kib, self._daemon.rss_kib)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


def main(load: str, fastsse: str, litellm: str | None = None, key: str = "") -> None:
    """Prints three lines for each row."""
    port = free_port()
    config = CONFIG.format(port=port, upstream=UPSTREAM_PORT)
    with upstream(fastsse) as direct, running_daemon(config=config) as daemon:
        for row in ROWS:
            print(row.name)
            print(f"  direct   {run_load(load, direct, row)}")
            with Peak(daemon) as peak:
                line = run_load(load, f"127.0.0.1:{port}", row)
            print(
                f"  daemon   {line}  CPU {peak.cpu_s / SECONDS:.0%}  RSS {peak.rss_kib >> 10} MiB"
            )
            if litellm is not None:
                address = litellm.removeprefix("http://").rstrip("/")
                print(f"  LiteLLM  {run_load(load, address, row, key)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
