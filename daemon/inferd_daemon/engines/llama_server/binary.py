"""Which llama-server a boot spec starts: its own, the configured one, one on PATH, or ours.

Looks at files, starts nothing. The bundled one needs no compiler: it serves the xllamacpp wheel
behind the same flags.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..base import EngineFailure
from ..failures import Cause, failure
from .boot_spec import BootSpec

VARIABLE = "INFERD_LLAMA_SERVER"
PROGRAM = "llama-server"
BUNDLED = (sys.executable, "-P", "-m", "inferd_daemon.engines.llama_server.bundled_server")
"""`-P`: the working directory is no place to import from."""


def find_command(spec: BootSpec, environment: Mapping[str, str]) -> list[str]:
    """The program and what must follow it.

    What is named must be there: only where nothing is named does the search go on. Raises
    EngineFailure.
    """
    if spec.binary_path is not None:
        return [_named(spec.binary_path, "binary_path", environment)]
    configured = environment.get(VARIABLE)
    if configured:
        return [_named(configured, VARIABLE, environment)]
    found = shutil.which(PROGRAM, path=environment.get("PATH", os.defpath))
    return [found] if found is not None else list(BUNDLED)


def _named(name: str, by: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if found is not None:
        return found
    if "/" not in name:
        why = "is not on PATH"
    elif Path(name).is_dir():
        why = "is a directory"
    elif Path(name).exists():
        why = "is not executable by the daemon's user"
    else:
        why = "does not exist"
    raise EngineFailure(failure(Cause.BAD_OPTION, f"`{by}`: {name} {why}"))
