"""The short tie does what the exec stub does, and is not taken where it does not work."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from inferd_daemon.supervision.processes import tie
from tests.support.processes import is_alive, until


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What was found is remembered; each test looks anew."""
    tie._working_tie.cache_clear()
    assert tie.known_tie(sys.executable) is None
    yield
    tie._working_tie.cache_clear()


def tied(*argv: str) -> list[str]:
    found = tie.short_tie(sys.executable)
    if found is None:
        pytest.skip("no working setpriv here (util-linux 2.33 or later)")
    return [*found, *argv]


def test_it_becomes_the_program() -> None:
    argv = tied("sh", "-c", 'echo $$ "$0" "$@"', "a  b", "", "c$d")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.read() == f"{child.pid} a  b  c$d\n"
    assert child.returncode == 0


def test_it_does_not_run_for_a_parent_that_is_gone() -> None:
    *before, _ = tied()
    done = subprocess.run([*before, "1000000000", "echo", "ran"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (126, b"")


PARENT = """
import os, subprocess, sys, time
from inferd_daemon.supervision.processes.tie import short_tie
child = subprocess.Popen([*short_tie(sys.executable), "sleep", "1000"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(1000)
"""


def test_a_killed_parent_takes_its_child_along() -> None:
    tied()
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        trio.run(until, lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        parent.kill()
    trio.run(until, lambda: not is_alive(pid))


@pytest.mark.parametrize("script", [None, "exit 1", "exec sleep 100"])
def test_what_does_not_work_is_not_taken(
    script: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        program = tmp_path / "setpriv"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setattr(tie, "CHECK_TIMEOUT_S", 0.2)
    path = os.environ["PATH"] if script else "/nowhere"
    monkeypatch.setenv("PATH", f"{tmp_path}:{path}")
    assert tie.short_tie(sys.executable) is None


async def test_it_is_known_once_it_was_learnt() -> None:
    await tie.learn_tie()
    assert tie.known_tie(sys.executable) == tie.short_tie(sys.executable)


ELF = Path(sys.executable).read_bytes()[:64]


@pytest.mark.parametrize(
    ("content", "runs"),
    [
        (b"#!/bin/sh\n", True),
        (ELF, True),
        (ELF[:18] + b"\xff\xff" + ELF[20:], False),  # of another machine
        (b"touch /tmp/x\n", False),
        (b"", False),
        (None, False),
    ],
)
def test_what_a_shell_would_take_for_its_own_is_left_to_the_stub(
    content: bytes | None, runs: bool, tmp_path: Path
) -> None:
    tied()
    program = tmp_path / "program"
    if content is not None:
        program.write_bytes(content)
    assert (tie.short_tie(str(program)) is not None) is runs
