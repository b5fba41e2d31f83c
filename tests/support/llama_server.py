"""The real llama-server for tests: where it is, what its help says.

Named by INFERD_LLAMA_SERVER or found on PATH; `.ci/run` builds it. Without one, tests that need it
are skipped and say how to get it.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest


def llama_server_path() -> Path:
    """The binary. Skips the calling test where there is none."""
    named = os.environ.get("INFERD_LLAMA_SERVER") or shutil.which("llama-server")
    if not named:
        pytest.skip("no llama-server: set INFERD_LLAMA_SERVER, or let .ci/run build one")
    return Path(named)


@cache
def help_text() -> str:
    """What `llama-server --help` prints."""
    done = subprocess.run(
        [llama_server_path(), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout
