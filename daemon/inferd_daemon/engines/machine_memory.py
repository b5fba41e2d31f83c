"""How much memory a model may take on this machine, so that too much fails at once and clearly.

Linux grants what it does not have, and ends some process by SIGKILL when it is touched.
"""

import resource
from pathlib import Path

STACKS_BYTES = 2 * 1024**3
"""Stacks of threads that are reserved and never touched count against the limit as well."""


def refuse_beyond_free() -> None:
    """Let any allocation in this process beyond what is free now fail at once.

    Files that are mapped, as models are, do not count.
    """
    fields = read_meminfo(Path("/proc/meminfo").read_text())
    limit = fields["MemAvailable"] + fields.get("SwapFree", 0) + STACKS_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def total_bytes() -> int:
    """All memory and swap that this process can ever have: the machine's, or its cgroup's."""
    fields = read_meminfo(Path("/proc/meminfo").read_text())
    total = fields["MemTotal"] + fields.get("SwapTotal", 0)
    limit = cgroup_limit_bytes()
    return total if limit is None else min(total, limit)


def cgroup_limit_bytes() -> int | None:
    """`memory.max` of this process's cgroup (version 2); None where there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
        limit = Path("/sys/fs/cgroup", group.lstrip("/"), "memory.max").read_text().strip()
    except (OSError, StopIteration):
        return None
    return None if limit == "max" else int(limit)


def read_meminfo(text: str) -> dict[str, int]:
    """The text of /proc/meminfo as bytes by name."""
    fields = (line.partition(":") for line in text.splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in fields if value}
