"""What a saved cache is good for: this very program and these very files, nothing like them.

Looks at files and at the process; the caller takes it while what was loaded is still what is there.
"""

import hashlib
import os
import time
from pathlib import Path

import msgspec

from .boot_spec import BootSpec

PROGRAM_PARTS = ("llama", "ggml", "mtmd")
"""In the names of the libraries that decide what a cache looks like."""
CLOCK_SLACK_S = 0.05
"""Ticks of the kernel, and two clocks that are read one after the other."""


def take_identity(spec: BootSpec, pid: int, build: str) -> str:
    """Hex that changes with the model, its adapters, or the program.

    `pid` runs it; `build` is what it says of its version. Raises OSError, too where a file was
    changed since the process began: nobody knows which one it has loaded.
    """
    files = {path: os.stat(path) for path in _named_files(spec)}
    began_at = _began_at(pid)
    for path, status in files.items():
        if status.st_ctime > began_at + CLOCK_SLACK_S:
            raise OSError(f"{path} was changed after it was loaded")
    marks = sorted((path, one.st_size, one.st_mtime_ns, one.st_ino) for path, one in files.items())
    parts = [build, marks, sorted(_programs(pid))]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _named_files(spec: BootSpec) -> list[str]:
    """The model, the projector, and whatever file an extra argument names, such as an adapter."""
    named = [spec.model] + ([spec.mmproj] if spec.mmproj else [])
    words = [word for argument in spec.extra_args for word in argument.split(",")]
    named += [word for word in words if word.startswith("/") and os.path.isfile(word)]
    return [os.path.realpath(path) for path in named]


def _began_at(pid: int) -> float:
    """When a process began, in wall time."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    ticks = int(stat.rpartition(")")[2].split()[19])
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted_at + ticks / os.sysconf("SC_CLK_TCK")


def _programs(pid: int) -> set[tuple[str, str, int, int]]:
    """Path, inode, size and time of the program and its libraries, as they were mapped."""
    found: set[tuple[str, str, int, int]] = set()
    program = os.readlink(f"/proc/{pid}/exe")
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        # address, rights, offset, device, inode, path
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or "x" not in fields[1]:
            continue
        inode, path = fields[4], fields[5]
        name = path.rpartition("/")[2].lower()
        if path == program or any(part in name for part in PROGRAM_PARTS):
            found.add((path, inode, *_size_and_time(path)))
    return found


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # replaced or removed since; the inode tells it apart
        return 0, 0
    return status.st_size, status.st_mtime_ns
