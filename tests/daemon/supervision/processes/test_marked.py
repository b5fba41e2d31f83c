"""Processes found by what stands in their environment, and ended with what they start meanwhile."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_daemon.supervision.processes.marked import bears, end_marked, find_marked
from tests.support.daemon import wait_until
from tests.support.processes import is_alive, until


@contextmanager
def bearing(mark: str, script: str) -> Iterator[int]:
    """A shell in a session of its own with TEST_MARK set; its pid."""
    environment = {"PATH": os.environ["PATH"], "TEST_MARK": mark}
    with subprocess.Popen(
        ["sh", "-c", script], env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    ) as child:
        try:
            yield child.pid
        finally:
            child.kill()


async def test_only_those_that_bear_it_end() -> None:
    mark, other = secrets.token_hex(8), secrets.token_hex(8)
    wanted = f"TEST_MARK={mark}".encode()
    script = "sleep 1000 & setsid sleep 1000 & wait"
    with bearing(mark, script) as ours, bearing(other, "sleep 1000") as theirs:
        await until(lambda: len(list_marked(wanted)) == 3)
        assert ours in list_marked(wanted)
        ended = end_marked(wanted, timeout_s=60)
        assert len(ended) == 3
        assert not any(is_alive(pid) for pid in ended)
        assert is_alive(theirs)
        assert end_marked(wanted) == []


async def test_what_is_forked_meanwhile_ends_as_well(tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    wanted = f"TEST_MARK={mark}".encode()
    # Each dies by itself, but not before it has a successor, twenty times.
    chain = tmp_path / "chain"
    chain.write_text('n=$1; [ $n = 0 ] || { setsid sh "$0" $((n-1)) & }; sleep 0.05\n')
    with bearing(mark, f"setsid sh {chain} 20 & sleep 1000"):
        await until(lambda: len(list_marked(wanted)) >= 3)
        end_marked(wanted, timeout_s=60)
        assert list_marked(wanted) == []


def test_a_part_of_the_value_is_not_the_value() -> None:
    mark = secrets.token_hex(8)
    with bearing(mark + "0", "sleep 1000") as pid:
        # At first it is still becoming the shell, and shows no environment.
        wait_until(lambda: bears(pid, [b"X=1", f"TEST_MARK={mark}0".encode()]), 10, "its mark")
        assert not bears(pid, [f"TEST_MARK={mark}".encode()])
    assert not bears(pid, [f"TEST_MARK={mark}0".encode()])


def list_marked(wanted: bytes) -> list[int]:
    """Their pids, with nothing held open."""
    found: list[int] = []
    for pid, pidfd in find_marked([wanted]):
        os.close(pidfd)
        found.append(pid)
    return found
