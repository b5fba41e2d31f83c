"""Wires the rooms into a running daemon; owns the outermost nursery and the order of shutdown.

Shutdown, first signal: new requests are refused, running ones have `drain_timeout_s`, then each
gets its error frame. Second signal: everyone is dropped at once. Either way the backends are
stopped after the last request and the socket file goes last.
"""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable

import structlog
import trio

import inferd_proto

from .assembly import Assembly, assemble, group_id
from .config import Config, Places, find_places
from .control.state_watch import watch_state
from .control.view import DaemonView
from .fronts.admin_feed import AdminFeed
from .fronts.descriptors import connection_limit
from .fronts.listener import Listener
from .fronts.socket_file import SocketFile
from .supervision.state_directory import StateDirectory

LAST_WORDS_S = 2.0
"""After the drain's deadline: time for the error frames to reach clients that read."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = structlog.get_logger(__name__)


async def serve(config: Config, on_listening: Callable[[], None] | None = None) -> None:
    """Run the daemon until it is told to stop. Raises OperatorError where it cannot start."""
    places = find_places(config, os.environ, os.getuid())
    with (
        trio.open_signal_receiver(*_STOP_SIGNALS) as signals,
        SocketFile(places.socket, group=config.daemon.socket_group) as socket_file,
        SocketFile(places.admin_socket, mode=0o600) as admin_file,
        StateDirectory(places.state),
    ):
        parts = assemble(config, places)
        view = _view(parts, config, places)
        async with trio.open_nursery() as nursery:
            await nursery.start(parts.leasing.run)
            for backend in parts.backends.values():
                nursery.start_soon(backend.run)
            nursery.start_soon(parts.router.run)
            nursery.start_soon(watch_state, view)
            nursery.start_soon(AdminFeed(admin_file.socket, view).run)
            listener = _listener(socket_file.socket, view, parts, config)
            nursery.start_soon(listener.run)
            _log.info("listening", socket=str(places.socket), pid=os.getpid(), version=view.version)
            if on_listening is not None:
                on_listening()
            await _told_to_stop(signals, view)
            view.draining = True
            parts.leasing.changes.tell({"type": "daemon", "state": view.state})
            listener.end_streams()
            await _drain(listener, config.daemon.drain_timeout_s, signals)
            # Whose connection ends from here on did not end it: its leases wait for the next start.
            parts.leasing.stopping = True
            listener.abort()
            nursery.cancel_scope.cancel()
        for backend in parts.backends.values():
            await backend.close()
    _log.info("stopped")


async def _told_to_stop(signals: AsyncIterator[int], view: DaemonView) -> None:
    async with trio.open_nursery() as nursery:

        async def by_verb() -> None:
            await view.stop_asked.wait()
            _log.info("stopping", by="daemon.drain")
            nursery.cancel_scope.cancel()

        nursery.start_soon(by_verb)
        async for number in signals:
            _log.info("stopping", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()
            break


async def _drain(listener: Listener, timeout_s: float, signals: AsyncIterator[int]) -> None:
    """Let running requests finish; a second signal ends the patience."""
    async with trio.open_nursery() as nursery:

        async def finish() -> None:
            with trio.move_on_after(timeout_s) as scope:
                await listener.drained()
            if scope.cancelled_caught:
                _log.warning("drain timed out, ending requests", after_s=timeout_s)
                listener.end_requests()
                with trio.move_on_after(LAST_WORDS_S):
                    await listener.drained()
            nursery.cancel_scope.cancel()

        nursery.start_soon(finish)
        async for number in signals:
            _log.warning("stopping at once", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()
            break


def _view(parts: Assembly, config: Config, places: Places) -> DaemonView:
    return DaemonView(
        inferd_proto.__version__,
        str(places.socket),
        parts.router,
        leasing=parts.leasing,
        admin_group=group_id(config.daemon.admin_group, "admin_group"),
    )


def _listener(sock: socket.socket, view: DaemonView, parts: Assembly, config: Config) -> Listener:
    wanted = config.daemon.max_connections
    allowed = connection_limit(wanted)
    if allowed < wanted:
        _log.warning("too few open files for max_connections", wanted=wanted, allowed=allowed)
    return Listener(
        sock,
        view,
        max_connections=allowed,
        write_timeout_s=config.daemon.write_timeout_s,
        on_disconnect=parts.leasing.connection_closed,
    )
