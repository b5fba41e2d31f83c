"""The machine's memory as the kernel tells it, and a limit that makes too much fail at once."""

import subprocess
import sys
from pathlib import Path

from inferd_daemon.engines.machine_memory import read_meminfo, total_bytes


def test_meminfo_is_in_bytes() -> None:
    text = "MemTotal:       1000 kB\nHugePages_Total:       0\nSwapFree:  2 kB\n"
    assert read_meminfo(text) == {
        "MemTotal": 1_024_000,
        "HugePages_Total": 0,
        "SwapFree": 2048,
    }


def test_no_process_can_have_more_than_the_machine() -> None:
    fields = read_meminfo(Path("/proc/meminfo").read_text())
    assert 0 < total_bytes() <= fields["MemTotal"] + fields["SwapTotal"]


def test_an_allocation_beyond_what_is_free_fails_at_once() -> None:
    script = (
        "from inferd_daemon.engines.machine_memory import *\n"
        "refuse_beyond_free()\n"
        "half = bytearray(2**20)\n"
        "try: bytearray(total_bytes() + 4 * STACKS_BYTES)\n"
        "except MemoryError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"refused\n"
