"""Groups of this machine, by the names that the configuration gives them."""

import grp

from ..errors import OperatorError


def group_id(name: str | None, key: str) -> int | None:
    """The number of a group that the configuration names at `key`. Raises OperatorError."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OperatorError(f"{key}: there is no group {name!r}") from None
