"""Whether a caller may read the files that its spec names: the daemon reads them on its behalf.

Otherwise a user could learn of files that only the daemon's user may read. By the mode bits alone:
access lists count as no access.
"""

import os
import stat
from collections.abc import Collection, Iterable

from inferd_proto import ErrorCode

from ...errors import RequestError


def require_readable(files: Iterable[str], uid: int, groups: Collection[int]) -> None:
    """Raises RequestError (`permission_denied`). Blocks for as long as the disk does."""
    for name in files:
        try:
            found = os.stat(name)
        except OSError:
            continue  # its absence is told by who opens it
        if not _may_read(found, uid, groups):
            raise RequestError(
                ErrorCode.PERMISSION_DENIED,
                f"uid {uid} may not read {name}, so no runtime reads it on its behalf",
            )


def _may_read(found: os.stat_result, uid: int, groups: Collection[int]) -> bool:
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IRUSR)
    if found.st_gid in groups:
        return bool(found.st_mode & stat.S_IRGRP)
    return bool(found.st_mode & stat.S_IROTH)
