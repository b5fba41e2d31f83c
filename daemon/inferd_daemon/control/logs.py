"""`logs`: what a runtime wrote to its standard output and error."""

from collections.abc import AsyncGenerator
from typing import Annotated

from msgspec import Meta, Struct

from inferd_proto import InstanceKey

from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of
from .runtime_sight import find_runtime


class _Logs(Struct, frozen=True):
    instance_key: InstanceKey
    follow: bool = False
    lines: Annotated[int, Meta(ge=0, le=100_000)] = 100


async def logs(call: Call) -> AsyncGenerator[object, None]:
    """`{"line"}` for each of the last `lines` that are kept; with `follow` for each new one too.

    `{"missed"}` says how many went by unseen because the caller was too slow.
    """
    asked = read_arguments(call.arguments, _Logs)
    runtime = find_runtime(call.view, claimant_of(call), asked.instance_key)
    log = runtime.supervisor.log
    log.poll()
    seen = max(log.total_lines - asked.lines, 0)
    while True:
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
        if seen == log.total_lines:
            await log.wait_changed()
