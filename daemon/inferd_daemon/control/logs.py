"""`logs`: what a runtime wrote to its standard output and error."""

from collections.abc import AsyncGenerator
from typing import Annotated

from msgspec import Meta, Struct

from inferd_proto import ErrorCode, InstanceKey

from ..errors import RequestError
from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of
from .runtime_sight import find_runtime


class _Logs(Struct, frozen=True):
    instance_key: InstanceKey
    follow: bool = False
    lines: Annotated[int, Meta(ge=0, le=100_000)] = 100


async def logs(call: Call) -> AsyncGenerator[object, None]:
    """`{"line"}` for each of the last `lines` that are kept; with `follow` for each new one too,
    until the runtime is forgotten.

    `{"missed"}` says how many went by unseen because the caller was too slow. For administrators
    and for who holds the runtime: requests of others may stand in it.
    """
    asked = read_arguments(call.arguments, _Logs)
    runtime = find_runtime(call.view, claimant_of(call), asked.instance_key)
    log = runtime.supervisor.log
    log.poll()
    seen = max(log.total_lines - asked.lines, 0)
    while True:
        _require_sight(call, runtime.key)
        kept = list(log.lines)
        oldest = log.total_lines - len(kept)
        if seen < oldest:
            if seen > 0 or asked.follow:
                yield {"missed": oldest - seen}
            seen = oldest
        for line in kept[seen - oldest :]:
            seen += 1
            yield {"line": line}
        if not asked.follow:
            return
        if seen < log.total_lines:
            continue
        present = call.view.leases.runtimes.get(runtime.key)
        if present is None:
            return
        if present.supervisor.log is log:
            await log.wait_changed()
        else:
            # Made anew for a caller who wants it otherwise: its log begins with it.
            log, seen = present.supervisor.log, 0


def _require_sight(call: Call, key: str) -> None:
    """Raises RequestError (`permission_denied`)."""
    claimant, keeper = claimant_of(call), call.view.leases.keeper
    if claimant.admin or keeper.table.visible(keeper.now(), claimant, instance_key=key):
        return
    raise RequestError(
        ErrorCode.PERMISSION_DENIED,
        "only who holds a lease on the runtime, the daemon's user, root and the admin group may "
        "read its log",
    )
