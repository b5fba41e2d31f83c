"""inferdctl against the real daemon, and the demo from nothing to nothing."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.daemon import running_daemon

CTL = [sys.executable, "-m", "inferd_client.ctl"]
PATIENCE_S = 60.0


def _run(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CTL, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | (env or {}),
        check=False,
    )


def test_the_verbs(socket: Path) -> None:
    env = {"INFERD_SOCKET": str(socket)}
    ended = _run("status", "--wait", "60", "--json", env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["ready"] is True
    assert _run("routes", "-q", env=env).stdout.split() == [
        "mock",
        "slow",
        "caller",
        "broken",
        "down",
    ]
    assert "out for lunch" in _run("routes", env=env).stdout
    ended = _run("run", "gpt", "Hi", "--max-tokens", "2", env=env)
    assert (ended.returncode, ended.stdout) == (0, "tok0 tok1 \n")
    ended = _run("run", "broken", "Hi", env=env)
    assert (ended.returncode, ended.stdout) == (1, "tok0 tok1 tok2 \n")
    assert len(ended.stderr.splitlines()) == 1
    assert len(json.loads(_run("embed", "a", env=env).stdout)) == 8


MOCK = """
[http]
listen = "127.0.0.1:0"

[backends.mock]
kind = "mock"

[routes.mock]
backends = ["mock"]
"""


def _without_values(lines: list[str]) -> list[str]:
    """Names, labels, kinds and helps; not what the scrape itself has changed."""
    said = [line if line.startswith("#") else line.rpartition(" ")[0] for line in lines]
    return [line for line in said if not line.startswith("inferd_http_responses_total")]


def test_metrics_are_those_of_the_front() -> None:
    with running_daemon(config=MOCK) as daemon:
        env = {"INFERD_SOCKET": str(daemon.socket)}
        assert _run("run", "mock", "Hi", env=env).returncode == 0
        (address,) = json.loads(_run("status", "--json", env=env).stdout)["http"]
        with urllib.request.urlopen(f"{address}/metrics", timeout=60) as response:
            scraped = response.read().decode().splitlines()
        ended = _run("metrics", env=env)
    lines = ended.stdout.splitlines()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert _without_values(lines) == _without_values(scraped)
    requests = 'inferd_requests_total{kind="generate",outcome="ok",route="mock"} 1.0'
    assert requests in lines
    assert requests in scraped


# -- the demo ------------------------------------------------------------------------------


@pytest.fixture
def base() -> Iterator[Path]:
    """The temporary directory of a command, short enough for a socket's path to fit."""
    with tempfile.TemporaryDirectory(prefix="ctl-", dir="/tmp") as directory:
        base = Path(directory) / "t"
        base.mkdir()
        yield base


def _left_behind(base: Path) -> list[str]:
    """Files under the temporary directory, and processes that still name it."""
    found = [str(path) for path in base.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(base) in words:
            found.append(f"{process}: {words[:200]!r}")
    return found


def _await_nothing_left(base: Path) -> None:
    """A killed process may take a moment to leave the table."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := _left_behind(base)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def test_the_demo(base: Path) -> None:
    ended = _run("demo", env={"TMPDIR": str(base)})
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "I am inferd's built-in demo model" in ended.stdout
    assert "first token after" in ended.stdout
    assert "tokens/s" in ended.stdout
    assert "weather({" in ended.stdout
    assert "nothing is left behind" in ended.stdout
    _await_nothing_left(base)


def test_a_temporary_directory_too_deep_for_a_socket_is_not_used(base: Path) -> None:
    deep = base / ("d" * 80)
    deep.mkdir()
    ended = _run("demo", env={"TMPDIR": str(deep)})
    assert ended.returncode == 0, ended.stderr
    assert "daemon is starting on /tmp/inferd-demo-" in ended.stdout
    deep.rmdir()
    _await_nothing_left(base)


def test_the_demo_as_json(base: Path) -> None:
    hostile = {
        "TMPDIR": str(base),
        "INFERD_CONFIG": "/does/not/exist.toml",
        "INFERD_SOCKET": "/does/not/exist.sock",
        "LISTEN_FDS": "1",
        "NOTIFY_SOCKET": "/does/not/exist",
    }
    ended = _run("demo", "--json", env=hostile)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["ready_ms"] > 0
    assert report["answer"]["stop_reason"] == "end_turn"
    assert report["answer"]["tokens"] > 50
    assert 0 < report["answer"]["first_token_ms"] <= report["answer"]["total_ms"]
    assert report["answer"]["tokens_per_s"] > 0
    (call,) = report["tool_call"]["tool_calls"]
    assert call["name"] == "weather"
    assert isinstance(call["input"]["city"], str)
    _await_nothing_left(base)


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("after", ["is starting", "ready after"])
def test_the_demo_is_ended_by_a_signal(
    base: Path, sign: signal.Signals, code: int, after: str
) -> None:
    with _demo(base) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if after in line:
                break
        assert [path.name[:12] for path in base.iterdir()] == ["inferd-demo-"]
        process.send_signal(sign)
        process.send_signal(sign)  # the impatient do it twice
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
    _await_nothing_left(base)


def test_the_demo_is_killed_outright(base: Path) -> None:
    """No process may survive; the directory cannot be helped."""
    with _demo(base) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "ready after" in line:
                break
        assert any(x.startswith("/proc/") for x in _left_behind(base))
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while processes := [x for x in _left_behind(base) if x.startswith("/proc/")]:
        assert time.monotonic() < deadline, processes
        time.sleep(0.02)


def _demo(base: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*CTL, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(base)},
        start_new_session=True,
    )


def _with_a_daemon_that(base: Path, code: str) -> dict[str, str]:
    """An environment in which `python -m inferd_daemon` is this code instead."""
    package = base.with_name(f"{base.name}-package") / "inferd_daemon"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(code)
    return {"TMPDIR": str(base), "PYTHONPATH": str(package.parent)}


@pytest.mark.parametrize(
    ("code", "options", "expected"),
    [
        (
            "import sys; print('no GPU, no fun', file=sys.stderr); sys.exit(3)",
            (),
            ["inferdctl: the daemon ended with exit code 3; it wrote:", "    no GPU, no fun"],
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            (),
            ["inferdctl: the daemon ended with signal SIGSEGV; it wrote nothing"],
        ),
        (
            "import time; print('loading', flush=True); time.sleep(60)",
            ("--timeout", "5"),
            ["    loading"],
        ),
        (
            "import signal, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: time.sleep(0))\n"
            "print('deaf', flush=True)\n"
            "while True: time.sleep(60)",
            ("--timeout", "5"),
            ["    deaf"],
        ),
    ],
    ids=["exits", "crashes", "hangs", "ignores SIGTERM"],
)
def test_the_demo_tells_why_a_daemon_does_not_start(
    base: Path, code: str, options: Sequence[str], expected: list[str]
) -> None:
    ended = _run("demo", *options, env=_with_a_daemon_that(base, code))
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert lines[-len(expected) :] == expected
    assert lines[0].startswith("inferdctl: the daemon ")
    _await_nothing_left(base)
