"""Whether a process does anything: by its CPU time, its page faults and its waits for a disk."""

from pathlib import Path
from typing import NamedTuple

STATE, MINOR_FAULTS, MAJOR_FAULTS, USER_TICKS, SYSTEM_TICKS = 0, 7, 9, 11, 12
"""Of /proc/PID/stat, counted from the field after the program's name."""
DISK_WAIT = "D"


class _Sum(NamedTuple):
    faults: int
    ticks: int


class Work:
    """What a process has done so far, from one look to the next."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before: _Sum | None = None

    def went_on(self) -> bool:
        """Whether it worked since the last look, or waits for a disk now. True for the first look,
        and where the kernel does not tell: nothing is held against it then.
        """
        try:
            now = _sum(self._pid)
            before, self._before = self._before, now
            return now != before or _waits_for_disk(self._pid)
        except (OSError, ValueError, IndexError):
            self._before = None
            return True


def _sum(pid: int) -> _Sum:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return _Sum(
        int(fields[MINOR_FAULTS]) + int(fields[MAJOR_FAULTS]),
        int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS]),
    )


def _waits_for_disk(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return any(_fields(task / "stat")[STATE] == DISK_WAIT for task in tasks)


def _fields(stat: Path) -> list[str]:
    # The second field is the program's name in brackets and may hold anything.
    return stat.read_text().rpartition(")")[2].split()
