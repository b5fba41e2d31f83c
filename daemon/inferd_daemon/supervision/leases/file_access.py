"""Whether a caller may read the files that its spec names: the daemon reads them on its behalf.

Otherwise a user could learn of files that only the daemon's user may read: each directory on the
way must let the caller through, links followed, or all behind it is refused alike. By mode bits
alone: what an access list grants beyond them counts as no access, what one takes from a named user
is not seen (its mask is, as the group's bits); nor is a path that is changed after the look.
"""

import os
import stat
from collections.abc import Collection, Iterable

from inferd_proto import ErrorCode

from ...errors import RequestError

MAX_LINKS = 40
"""As many as the kernel follows."""


def require_readable(files: Iterable[str], uid: int, groups: Collection[int]) -> None:
    """`files` are absolute paths. Blocks for as long as the disk does.

    Raises RequestError (`permission_denied`), OSError where it cannot be found out.
    """
    for name in files:
        if not _may_read(name, uid, groups):
            raise RequestError(
                ErrorCode.PERMISSION_DENIED,
                f"uid {uid} may not read {name}, so no runtime reads it on its behalf",
            )


def _may_read(name: str, uid: int, groups: Collection[int]) -> bool:
    """False also for what is not there, in a directory that the caller cannot enter."""
    here, ahead, links = "/", name.split("/")[::-1], 0
    try:
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if not _grants(os.stat(here), stat.S_IXOTH, uid, groups):
                return False
            if part == "..":
                here = os.path.dirname(here)
                continue
            there = os.path.join(here, part)
            if not stat.S_ISLNK(os.lstat(there).st_mode):
                here = there
                continue
            links += 1
            if links > MAX_LINKS:
                return True
            target = os.readlink(there)
            here = "/" if target.startswith("/") else here
            ahead += target.split("/")[::-1]
        return _grants(os.stat(here), stat.S_IROTH, uid, groups)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # Seen from where the caller may look too. Who opens it tells what is wrong.
        return True


def _grants(found: os.stat_result, bit: int, uid: int, groups: Collection[int]) -> bool:
    """`bit` is that of the others; the first class that fits decides alone."""
    if found.st_uid == uid:
        bit <<= 6
    elif found.st_gid in groups:
        bit <<= 3
    return bool(found.st_mode & bit)
