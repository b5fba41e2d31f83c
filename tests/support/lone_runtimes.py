"""Runtimes whose processes only sleep, under the daemon's real leasing: quick to start and end."""

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.base import Engine, EngineFailure, Health, Launch, Timing
from inferd_daemon.supervision.leases.blueprints import Blueprints
from inferd_daemon.supervision.leases.eviction import Limits
from inferd_daemon.supervision.leases.journal_file import JournalFile, open_journal
from inferd_daemon.supervision.leases.lease import Claimant
from inferd_daemon.supervision.leases.socket_access import Owner
from inferd_daemon.supervision.leasing import Leasing
from inferd_daemon.supervision.processes.logs import RuntimeLog
from inferd_daemon.supervision.runtimes.blueprint import Blueprint, Former, Hooks
from inferd_daemon.supervision.runtimes.supervisor import Supervisor
from inferd_proto import (
    BackendManifest,
    EndpointProtocol,
    JsonObject,
    LeaseEnsure,
    LeaseEnsured,
    ManagementMode,
    RuntimeKind,
    StartupKind,
)

MIB = 1 << 20
HELD_UP_AT_MOST_S = 60.0


class SleepEngine(Engine):
    """Runs `script` in a shell; healthy as `health` says."""

    def __init__(self, name: str, directory: Path, script: str) -> None:
        self.name = name
        self.timing = Timing(
            ready_timeout_s=30.0, readiness_interval_s=0.002, health_interval_s=0.1
        )
        self.endpoint = Endpoint(uds=directory / f"{name}.sock", key="k")
        self.script = script
        self.health = Health.HEALTHY
        self.refusal: EngineFailure | None = None
        self.starts = 0

    def prepare(self) -> Launch:
        """Raises EngineFailure where the test says so."""
        if self.refusal is not None:
            raise self.refusal
        self.starts += 1
        return Launch(["/bin/sh", "-c", self.script], dict(os.environ))

    async def look(self) -> Health:
        """As the test says, at once: no machine is so busy that this look is missed."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self.health


class SleepBlueprint(Blueprint):
    """One sleeper of so many `mib`; its engine is there once it was made."""

    kind = "boot"

    def __init__(
        self,
        key: str,
        directory: Path,
        *,
        mib: int = 10,
        idle_ttl_s: float | None = None,
        script: str = "exec sleep 600",
    ) -> None:
        self.instance_key = self.name = self.model_identity = key
        self.idle_ttl_s = idle_ttl_s
        self.mib = mib
        self.engine = SleepEngine(key, directory, script)
        self._log = RuntimeLog(directory / f"{key}.log")
        self.manifest = BackendManifest(
            backend="sleep",
            runtime_kind=RuntimeKind.SERVICE,
            management_modes=[ManagementMode.MANAGED],
            startup_kind=StartupKind.SPAWNED,
            protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS],
            capabilities={"streaming": True},
        )

    def make(self, hooks: Hooks, former: Former | None = None) -> Supervisor:
        """Its supervisor."""
        return Supervisor(
            self.engine,
            self._log,
            held=hooks.held,
            on_change=hooks.on_change,
            marks=hooks.marks,
        )

    async def estimate(self) -> int:
        """As the test says."""
        await trio.lowlevel.checkpoint()
        return self.mib * MIB

    def to_json(self) -> JsonObject:
        """Nothing to make it from again."""
        return {}


class FailingJournal(JournalFile):
    """A journal on a disk that takes nothing while `failing`, and waits while `held_up`."""

    failing = False
    _goes_on: threading.Event

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """For the block no write comes to its end."""
        self._goes_on.clear()
        try:
            yield
        finally:
            self._goes_on.set()

    def _write(self, added: bytes, whole: bytes | None) -> None:
        self._goes_on.wait(HELD_UP_AT_MOST_S)  # in the writer's thread
        if self.failing:
            raise OSError(28, "No space left on device")
        super()._write(added, whole)


def failing_journal(path: Path) -> FailingJournal:
    """Opened, and working so far."""
    opened = open_journal(path)
    opened.__class__ = FailingJournal
    assert isinstance(opened, FailingJournal)
    opened._goes_on = threading.Event()
    opened._goes_on.set()
    return opened


@asynccontextmanager
async def leasing(
    directory: Path, *, limits: Limits | None = None, journal: JournalFile | None = None
) -> AsyncIterator[Leasing]:
    """All of leasing over a journal in `directory`, for the block; nothing is left after it."""
    journal = journal or open_journal(directory / "journal")
    whole = Leasing(journal, Blueprints({}, {}), limits or Limits())
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(whole.run)
            yield whole
            nursery.cancel_scope.cancel()
    finally:
        journal.close()


def owner(connection: int = 1, uid: int | None = None) -> Owner:
    """A caller on a connection of its own."""
    uid = os.geteuid() if uid is None else uid
    return Owner(Claimant(uid, 1, connection, uid == os.geteuid()))


async def have(
    whole: Leasing, blueprint: Blueprint, connection: int = 1, **fields: object
) -> LeaseEnsured:
    """A lease on the blueprint's runtime. Raises RequestError."""
    asked = LeaseEnsure(target=blueprint.instance_key, **fields)  # type: ignore[arg-type]
    ensured = await whole.ensure.ensure(blueprint, asked, owner(connection))
    assert isinstance(ensured, LeaseEnsured)
    return ensured
