"""What runs of agents need of the daemon that they run in."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct


class AgentHost(Struct, frozen=True):
    """`directory` holds the private directories of runs, each removed after its run.

    `scratch` likewise holds what of them is best kept in memory; None: there is no such place.
    `marks` are added to the environment of every process, as for every other child.
    """

    directory: Path
    marks: Mapping[str, str] = {}
    scratch: Path | None = None
