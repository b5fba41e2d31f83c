"""Runtimes from one self of the daemon to the next: collected from the one, put into the other.

A process that the new configuration has no use for is given back, to be ended; none is forgotten.
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from ...engines.base import Belongings, EngineFailure
from ...errors import OperatorError, RequestError
from ..leases.blueprints import Blueprints, kept_address
from ..leases.ensure import runtime_entry
from ..processes.process import Process
from ..runtimes.machine import SERVING
from ..runtimes.managed import Managed
from ..runtimes.registry import Runtimes
from ..runtimes.supervisor import Supervisor
from .handover import HandedProcess, HandedRuntime

_log = structlog.get_logger(__name__)


class TakenOver(NamedTuple):
    """Processes that nobody here knows, and runtimes that shall run and have no process."""

    homeless: list[Process]
    unstarted: list[Managed]


def describe_runtimes(runtimes: Runtimes) -> list[HandedRuntime]:
    """What the next self needs to know of each runtime that runs or shall. Changes nothing."""
    return [_describe(runtime) for runtime in runtimes if runtime.occupies]


def leave(runtimes: Runtimes) -> None:
    """Close nothing of what was described: it belongs to the next self now."""
    for runtime in runtimes:
        if isinstance(runtime.supervisor, Supervisor):
            runtime.supervisor.engine.let_go()


def _describe(runtime: Managed) -> HandedRuntime:
    life = runtime.supervisor
    process, belongings = None, Belongings()
    if isinstance(life, Supervisor) and life.process is not None:
        process = HandedProcess(life.process.pid, life.process.pidfd)
        belongings = life.engine.belongings()
    return HandedRuntime(
        entry=runtime_entry(runtime),
        wanted=runtime.wanted or runtime.restarting,
        serving=runtime.state in SERVING,
        last_used=runtime.last_used,
        idle_since=runtime.idle_since,
        estimated_bytes=runtime.estimated_bytes,
        restarts=life.machine.restarts,
        process=process,
        facts=life.facts,
        belongings=belongings,
    )


def take_over(
    handed: Iterable[HandedRuntime], runtimes: Runtimes, blueprints: Blueprints
) -> TakenOver:
    """Put the runtimes of the former self into the table; call it before `runtimes` run."""
    taken = TakenOver([], [])
    for one in handed:
        process = None if one.process is None else Process(one.process.pid, one.process.pidfd)
        runtime = _place_for(one, runtimes, blueprints)
        if runtime is None:
            if process is not None:
                taken.homeless.append(process)
            if one.belongings.descriptor is not None:
                os.close(one.belongings.descriptor)
            continue
        runtime.estimated_bytes = one.estimated_bytes
        runtime.last_used, runtime.idle_since = one.last_used, one.idle_since
        if process is None:
            if one.wanted:
                taken.unstarted.append(runtime)
        else:
            _adopt(runtime, one, process)
    return taken


async def end(process: Process) -> None:
    """End a process that has no place any more, at once: its successor may want its address."""
    try:
        await process.kill()
    except EngineFailure as error:
        _log.error("former runtime does not end", pid=process.pid, reason=str(error))
    finally:
        process.close()


def _adopt(runtime: Managed, handed: HandedRuntime, process: Process) -> None:
    life = runtime.supervisor
    assert isinstance(life, Supervisor)  # only those have processes
    life.engine.take_over(handed.belongings)
    life.machine.restarts = runtime.restarts_before = handed.restarts
    runtime.wanted, runtime.was_ready = True, handed.serving
    life.adopt(process, handed.facts if handed.serving else None)
    if not handed.wanted:
        runtime.wanted = False
        life.stop()
    _log.info("runtime taken over", runtime=runtime.blueprint.name, pid=process.pid)


def _place_for(handed: HandedRuntime, runtimes: Runtimes, blueprints: Blueprints) -> Managed | None:
    entry = handed.entry
    runtime = runtimes.get(entry.instance_key)
    if runtime is not None:
        return runtime
    try:
        return runtimes.add(blueprints.of_entry(entry), kept_address(entry))
    except (RequestError, OperatorError) as error:
        _log.warning("runtime not taken over", instance_key=entry.instance_key, reason=str(error))
        return None
