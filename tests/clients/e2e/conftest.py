"""The real daemon as a process of its own, for the clients to meet."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

STOP_S = 60.0

CONFIG = """
default_route = "mock"

[backends.mock]
kind = "mock"

[backends.slow]
kind = "mock"
token_ms = 20
max_tokens = 1000

[backends.caller]
kind = "mock"
tool_call = true

[backends.broken]
kind = "mock"
drop_after = 3

[backends.down]
kind = "mock"
not_ready = "out for lunch"

[routes.mock]
backends = ["mock"]
aliases = ["gpt"]

[routes.slow]
backends = ["slow"]
active_permits = 1
queue_depth = 1

[routes.caller]
backends = ["caller"]

[routes.broken]
backends = ["broken"]

[routes.down]
backends = ["down"]
"""

Start = Callable[[Path], AbstractContextManager["subprocess.Popen[bytes]"]]


@contextmanager
def running_daemon(socket: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The daemon on `socket`; ended, and awaited, with the block."""
    config = socket.with_suffix(".toml")
    config.write_text(CONFIG)
    process = subprocess.Popen(
        [sys.executable, "-m", "inferd_daemon", "--config", str(config), "--socket", str(socket)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


@pytest.fixture
def start() -> Start:
    """`running_daemon`, for tests that end it themselves."""
    return running_daemon


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a daemon that a whole module shares; it is coming up."""
    path = tmp_path_factory.mktemp("d") / "inferd.sock"
    with running_daemon(path):
        yield path
