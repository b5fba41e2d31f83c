"""What runs of agents need of the daemon that they run in."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct


class AgentHost(Struct, frozen=True):
    """`directory` holds the private directories of runs, each removed after its run.

    `marks` are added to the environment of every process, as for every other child.
    """

    directory: Path
    marks: Mapping[str, str] = {}
