"""What runtimes of former runs left on the disk: their directories, and logs of long ago.

Called before anybody is let in. Touches nothing that a runtime of this run has, nor what the
daemon does not name that way itself.
"""

import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .boot_blueprint import DIRECTORY_CHARS
from .registry import KEPT_ENDED

_DIRECTORY = re.compile(rf"[0-9a-f]{{{DIRECTORY_CHARS}}}")
_LOG = re.compile(r"(.+\.log)(\.\d+)?")


class Leftovers(NamedTuple):
    """`runtimes` holds directories of runtimes, `logs` their logs."""

    runtimes: Path
    logs: Path

    def sweep(self, kept: Collection[Path]) -> None:
        """Remove all but what is `kept`; of other logs those of the runtimes that wrote last stay,
        as many as a running daemon keeps: why a run ended stands there. Blocks; never raises.
        """
        for path in _entries(self.runtimes):
            if _DIRECTORY.fullmatch(path.name) and path not in kept and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
        logs: dict[str, list[Path]] = {}
        for path in _entries(self.logs):
            found = _LOG.fullmatch(path.name)
            if found and path.with_name(found[1]) not in kept:
                logs.setdefault(found[1], []).append(path)
        by_age = sorted(logs.values(), key=lambda paths: max(map(_written, paths)), reverse=True)
        for paths in by_age[KEPT_ENDED:]:
            for path in paths:
                with suppress(OSError):
                    path.unlink()


def _entries(directory: Path) -> Iterator[Path]:
    try:
        yield from list(directory.iterdir())
    except OSError:
        return


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
