"""What makes a process this one and no other: its start time, and the boot it started in."""

import os
from pathlib import Path


def read_boot_id() -> str:
    """What tells this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The second field is the program's name in brackets and may hold anything.
    return int(stat.rpartition(")")[2].split()[19])


def has_ended(pid: int, start_ticks: int | None) -> bool:
    """Whether certainly the process of this number and start has ended.

    `start_ticks` None or 0: its start is not known, and whoever bears the number counts as it.
    """
    if is_gone(pid):
        return True
    started = read_start_ticks(pid) if start_ticks and pid > 0 else 0
    return started not in (0, start_ticks)


def is_gone(pid: int) -> bool:
    """Whether certainly no process bears the number: false also where it cannot be told.

    True of none that lives; a number may be borne by another one by now. Sees processes that
    /proc may hide.
    """
    if pid <= 0:
        return False  # of a process that this namespace does not see
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
