"""A daemon with one route that starts a llama-server, for the clients' tests of leases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemon import RunningDaemon
from tests.support.lease_client import MODEL, leasing_daemon

CONFIG = f"""
default_route = "chat"

[limits]
idle_ttl = "30s"
max_runtimes = 2

[http]
listen = "127.0.0.1:0"

[backends.demo]
kind = "llama_server"
model = "{MODEL}"
alias = "demo-model"
ctx_size = 512
threads = 1
parallel = 1

[backends.mock]
kind = "mock"

[routes.chat]
backends = ["demo"]
aliases = ["gpt"]

[routes.mock]
backends = ["mock"]
"""


@contextmanager
def daemon_with(server: str | Path) -> Iterator[RunningDaemon]:
    """`server` "" is the bundled one."""
    with leasing_daemon(CONFIG, server=server) as daemon:
        yield daemon
