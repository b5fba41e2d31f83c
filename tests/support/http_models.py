"""A real daemon with an HTTP front and models behind it, for clients that others wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .daemon import RunningDaemon, wait_until
from .http_client import addresses, http_daemon

KEY = "k3y-0123456789abcdef"
_HTTP = f"""
[http.clients.tests]
key = "{KEY}"
"""
_MODELS = """
[backends.demo]
kind = "libllama"
model = "demo"
threads = 1
parallel = 2

[backends.vectors]
kind = "libllama"
model = "demo"
threads = 1
embeddings = true
pooling = "mean"

[backends.spawned]
kind = "llama_server"
model = "demo"
threads = 1
parallel = 2

[backends.narrow]
kind = "llama_server"
model = "demo"
threads = 1
parallel = 1
ctx_size = 512

[backends.mock]
kind = "mock"

[backends.endless]
kind = "mock"
max_tokens = 100000
token_ms = 10
slots = 2

[backends.broken]
kind = "mock"
drop_after = 3

[routes.demo]
backends = ["demo"]
[routes.vectors]
backends = ["vectors"]
[routes.spawned]
backends = ["spawned"]
[routes.narrow]
backends = ["narrow"]
[routes.mock]
backends = ["mock"]
[routes.endless]
backends = ["endless"]
queue_depth = 0
[routes.broken]
backends = ["broken"]
"""


class HttpModels(NamedTuple):
    """`root_url` has no path; `key` opens everything."""

    daemon: RunningDaemon
    root_url: str
    key: str = KEY

    @property
    def base_url(self) -> str:
        """As OpenAI's clients want it."""
        return f"{self.root_url}/v1"


@contextmanager
def http_models() -> Iterator[HttpModels]:
    """Routes: demo and vectors (the demo model in workers), spawned and narrow (in servers that
    start when they are asked for; narrow has 512 tokens of context), mock, endless (two at once, no
    queue), broken.
    """
    with http_daemon(_HTTP, _MODELS) as daemon:
        for runtime in ("demo", "vectors"):
            _await_ready(daemon, runtime)
        yield HttpModels(daemon, addresses(daemon)[-1])


def _await_ready(daemon: RunningDaemon, runtime: str) -> None:
    def ready() -> bool:
        return any(
            line["event"] == "runtime ready" and line["runtime"] == runtime
            for line in daemon.log_lines()
        )

    wait_until(ready, 20, f"the runtime {runtime}")
