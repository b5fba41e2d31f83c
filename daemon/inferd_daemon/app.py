"""Wires the rooms into a running daemon; owns the outermost nursery and the order of shutdown.

Shutdown, first signal: new requests are refused, running ones have `drain_timeout_s`, then each
gets its error frame. Then the backends are stopped, and the socket file goes last. A second
signal, whenever it comes, drops everyone and kills the backends' processes at once.

Upgrade in place (leases.md section 6): requests wait unread, running ones have the same time, then
everything ends except processes and descriptors, which go to the next self.
"""

import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog
import trio

import inferd_proto

from .assembly import Assembly, assemble
from .backends.base import Backend
from .config import Config, Places, find_places, group_id
from .control.state_watch import watch_state
from .control.view import DaemonView
from .fronts.admin_feed import AdminFeed
from .fronts.byte_budget import ByteBudget
from .fronts.http.server import HttpServer
from .fronts.last_door import last_door
from .fronts.listener import Listener
from .fronts.open_files import OpenFiles, open_files
from .fronts.together import Fronts, share_connections
from .lean_imports import LATE, import_later
from .orders import SIGNALS, Order, Orders
from .supervision.leasing import Leasing
from .supervision.runtimes.registry import Runtimes
from .supervision.succession.handover import (
    HandedClient,
    HandedFiles,
    HandedHttpClient,
    Handover,
)
from .supervision.succession.takeover import describe_runtimes, leave
from .supervision.succession.upgrade import Upgrade, UpgradeRefused
from .systemd import ServiceManager

LATE_AFTER_S = 0.1
"""After an upgrade: who waited in the backlog is answered before anything else is loaded."""
LAST_WORDS_S = 2.0
"""After the drain's deadline: time for the error frames to reach clients that read."""
RUN_AGAIN_S = 1.0
_log = structlog.get_logger(__name__)


async def serve(
    config: Config,
    on_listening: Callable[[], None] | None = None,
    former: Handover | None = None,
) -> Handover | None:
    """Run the daemon until it is told to stop; what its next self needs, where it shall have one.

    `former` is what the self before gave. Raises OperatorError where it cannot start.
    """
    places = find_places(config, os.environ, os.getuid())
    with (
        trio.open_signal_receiver(*SIGNALS) as signals,
        open_files(config, places, None if former is None else former.files) as files,
    ):
        # What came between two selves waited; see `reexec`.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        parts = assemble(config, places, former)
        view = _view(parts, config, places)
        view.upgrades = 0 if former is None else former.upgrades
        view.upgrade = Upgrade(lambda: _handover(files.describe(), parts, view))
        manager = ServiceManager(os.environ)
        clients: list[HandedClient] | None = None
        orders = Orders(signals)
        parts.agents.clear_away()
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                fronts = _fronts(files, view, parts, config, former)
                await nursery.start(parts.leasing.run)
                await nursery.start(parts.agents.run)
                for backend in parts.backends.values():
                    nursery.start_soon(keep_running, backend)
                nursery.start_soon(parts.router.run)
                nursery.start_soon(watch_state, view)
                nursery.start_soon(AdminFeed(files.admin.socket, view).run)
                nursery.start_soon(fronts.listener.run)
                nursery.start_soon(fronts.http.run)
                _log.info(
                    "listening", socket=str(places.socket), pid=os.getpid(), version=view.version
                )
                nursery.start_soon(manager.run)
                if former is not None:
                    nursery.start_soon(_load_late)
                manager.ready(f"{len(config.routes)} routes")
                if on_listening is not None:
                    on_listening()
                if former is not None and former.code is not None:
                    _log.info("upgraded", gap_ms=round((time.monotonic() - former.began) * 1000))
                timeout_s = config.daemon.drain_timeout_s
                if (
                    await _told(orders, view) == "upgrade"
                    and await _rest(fronts, parts.leasing, timeout_s, orders, manager)
                    # Who asked for it meanwhile was promised a stop.
                    and not view.stop_asked.is_set()
                ):
                    parts.leasing.let_go()
                    clients = fronts.listener.hand_over()
                    http_clients = fronts.http.hand_over()
                else:
                    manager.stopping()
                    view.draining = True
                    parts.leasing.end_waiting()
                    parts.leasing.changes.tell({"type": "daemon", "state": view.state})
                    fronts.end_streams()
                    if not await _drain(fronts, fronts.drained, timeout_s, orders):
                        parts.leasing.runtimes.kill()
                    # An upgrade leaves what comes from here on to the next self.
                    outer.start_soon(_kill_when_told, orders, parts.leasing.runtimes)
                # Whose connection ends from here on did not end it: its leases wait for the next
                # start.
                parts.leasing.stopping = True
                fronts.abort()
                nursery.cancel_scope.cancel()
            for backend in parts.backends.values():
                await backend.close()
            outer.cancel_scope.cancel()
        if clients is not None:
            handover = _handover(files.hand_over(), parts, view, fronts, clients, http_clients)
            leave(parts.leasing.runtimes)
            return handover
    _log.info("stopped")
    return None


async def keep_running(backend: Backend) -> None:
    """What nobody foresaw in one backend must not end the others: it is logged, and run again."""
    while True:
        with last_door(f"backend {backend.name}", os.getpid()):
            await backend.run()
            return
        await trio.sleep(RUN_AGAIN_S)


async def _load_late() -> None:
    """What clients of the former self did not wait for.

    In a thread it would hold up the loop as well, for it keeps the interpreter; so it is done
    piece by piece, of some milliseconds each.
    """
    await trio.sleep(LATE_AFTER_S)
    for name in LATE:
        import_later(name)
        await trio.lowlevel.checkpoint()


async def _told(told: Orders, view: DaemonView) -> Order:
    """Wait for an order, by signal or by verb."""
    orders: list[Order] = []
    assert view.upgrade is not None
    async with trio.open_nursery() as nursery:

        async def by_verb(asked: trio.Event, order: Order) -> None:
            await asked.wait()
            orders.append(order)
            nursery.cancel_scope.cancel()

        nursery.start_soon(by_verb, view.stop_asked, "stop")
        nursery.start_soon(by_verb, view.upgrade.asked, "upgrade")
        while True:
            order, by = await told.next()
            if order == "stop":
                break
            nursery.start_soon(_ask, view.upgrade)
        view.draining = True  # who reads that it stops is refused by then
        _log.info("stopping", signal=by)
        orders.append("stop")
        nursery.cancel_scope.cancel()
    # a stop that came with an upgrade counts
    return "stop" if "stop" in orders else "upgrade"


async def _ask(upgrade: Upgrade) -> None:
    with suppress(UpgradeRefused):  # the log has the reason
        await upgrade.ask()


async def _rest(
    fronts: Fronts, leasing: Leasing, timeout_s: float, orders: Orders, manager: ServiceManager
) -> bool:
    """Have everything at rest for the next self; False where a signal asks for a stop instead."""
    _log.info("upgrading", pid=os.getpid())
    manager.reloading()
    fronts.pause()
    leasing.hear_nobody()
    fronts.end_streams()
    return await _drain(fronts, fronts.rested, timeout_s, orders)


async def _drain(
    fronts: Fronts,
    finished: Callable[[], Awaitable[None]],
    timeout_s: float,
    orders: Orders,
) -> bool:
    """Let running requests finish; a signal ends the patience, and makes it False."""
    patient, told = False, None
    async with trio.open_nursery() as nursery:

        async def finish() -> None:
            nonlocal patient
            with trio.move_on_after(timeout_s) as scope:
                await finished()
            if scope.cancelled_caught:
                _log.warning("drain timed out, ending requests", after_s=timeout_s)
                fronts.end_requests()
                with trio.move_on_after(LAST_WORDS_S):
                    await finished()
            patient = True
            nursery.cancel_scope.cancel()

        nursery.start_soon(finish)
        told = await _stop_from(orders)
        _log.warning("stopping at once", signal=told)
        nursery.cancel_scope.cancel()
    # A signal in the very turn in which all was finished counts.
    return patient and told is None


async def _kill_when_told(orders: Orders, runtimes: Runtimes) -> None:
    """While processes are being stopped, a signal ends them at once."""
    while True:
        _log.warning("killing what still runs", signal=await _stop_from(orders))
        runtimes.kill()


async def _stop_from(orders: Orders) -> str:
    """Wait for a signal that asks for a stop; its name."""
    while True:
        order, by = await orders.next()
        if order == "stop":  # an upgrade is under way, or comes too late
            return by


def _handover(
    files: HandedFiles,
    parts: Assembly,
    view: DaemonView,
    fronts: Fronts | None = None,
    clients: Sequence[HandedClient] = (),
    http_clients: Sequence[HandedHttpClient] = (),
) -> Handover:
    return Handover(
        pid=os.getpid(),
        mark=parts.leasing.mark,
        files=files,
        upgrades=view.upgrades + 1,
        accepted=0 if fronts is None else fronts.listener.accepted,
        began=0.0 if fronts is None else fronts.listener.paused_at,
        code=None if view.upgrade is None else view.upgrade.code,
        clients=list(clients),
        http_clients=list(http_clients),
        runtimes=describe_runtimes(parts.leasing.runtimes),
    )


def _view(parts: Assembly, config: Config, places: Places) -> DaemonView:
    return DaemonView(
        inferd_proto.__version__,
        str(places.socket),
        parts.router,
        leasing=parts.leasing,
        agents=parts.agents,
        admin_group=group_id(config.daemon.admin_group, "admin_group"),
    )


def _fronts(
    files: OpenFiles, view: DaemonView, parts: Assembly, config: Config, former: Handover | None
) -> Fronts:
    budget = ByteBudget(config.daemon.max_request_bytes_in_memory)
    places = share_connections(config)
    listener = Listener(
        files.socket.socket,
        view,
        max_connections=places.frames,
        write_timeout_s=config.daemon.write_timeout_s,
        read_timeout_s=config.daemon.read_timeout_s,
        budget=budget,
        on_disconnect=parts.leasing.connection_closed,
        handover=former,
        lines={op: file.socket for op, file in files.lines.items()},
    )
    http = HttpServer(
        files.http,
        config.http,
        view,
        budget,
        max_connections=places.http,
        handed=() if former is None else former.http_clients,
    )
    view.http = http
    parts.leasing.open_to(http)
    return Fronts(listener, http)
