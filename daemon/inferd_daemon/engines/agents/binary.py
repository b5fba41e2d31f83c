"""Where a CLI's program is: as configured, as the environment names it, or on PATH.

npm puts a script on PATH that starts the real program; where that can be found it is used itself:
one process less, and signals reach it.
"""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from ...errors import BackendFault
from .profile import AgentProfile

_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
"""npm's words for machines."""
NOWHERE = os.devnull
"""A PATH on which nothing is found: no directory, and nobody can make it one."""
_ELF = b"\x7fELF"


def find_binary(
    profile: AgentProfile, environment: Mapping[str, str], configured: str | None = None
) -> Path:
    """What is named must be there: only where nothing is named, PATH is searched.

    Raises BackendFault saying what to install or to set.
    """
    named = configured or environment.get(profile.variable)
    found = shutil.which(named or profile.program, path=environment.get("PATH", os.defpath))
    if found is not None:
        return _native(profile, Path(found).resolve())
    if named:
        by = "the configuration" if configured else profile.variable
        raise BackendFault(f"{profile.name}: {by} names {named}, which is no program to run")
    raise BackendFault(
        f"{profile.name} is not installed: there is no `{profile.program}` on the daemon's PATH "
        f"(npm package {profile.package}); install it or set {profile.variable}"
    )


def is_native(program: Path) -> bool:
    """Whether the kernel runs it by itself: a script needs its interpreter found."""
    try:
        with program.open("rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False  # who runs it will hear why


def _native(profile: AgentProfile, program: Path) -> Path:
    marker = Path("node_modules", profile.package).parts
    for root in program.parents:
        if root.parts[-len(marker) :] == marker:
            break
    else:
        return program
    machine = platform.machine()
    architecture = _ARCHITECTURES.get(machine, machine)
    for pattern in profile.native:
        for candidate in sorted(root.glob(pattern.format(arch=architecture))):
            if os.access(candidate, os.X_OK):
                return candidate.resolve()
    return program
