"""All that is heavy about HTTP, in one import: hypercorn, Starlette, and what is built on them.

Loaded when the front first listens, never before. Makes connections; owns no task and no socket.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import structlog
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.worker_context import WorkerContext

from ..byte_budget import ByteBudget
from ..peer import peer_of
from .app import build_app
from .client_stream import ClientStream
from .connection import Connection
from .context import HttpContext
from .doors import HttpDoor
from .guard import DoorRules, Guard
from .keys import ClientKeys
from .tls import server_context

HANDSHAKE_S = 10.0
"""Who wants to speak TLS does so at once."""
SPARE_IDLE_S = 5.0
"""The spare connections are few."""
_log = structlog.get_logger(__name__)


class Stack:
    """Makes the connection of one client after the other. Raises OperatorError."""

    def __init__(
        self, context: HttpContext, budget: ByteBudget, environ: Mapping[str, str]
    ) -> None:
        self._context = context
        self._budget = budget
        self._keys = ClientKeys(context.config, environ)
        self._tls = server_context(context.config)
        self._app = build_app(context)
        self._hypercorn = _hypercorn(min(context.config.idle_timeout_s, HANDSHAKE_S))
        self._worker = WorkerContext(None)
        self._guards: dict[DoorRules, Guard] = {}

    def connect(
        self,
        client: ClientStream,
        door: HttpDoor,
        on_change: Callable[[], None],
        *,
        spare: bool = False,
    ) -> Connection:
        """For a client that came in at `door`; it is served by the connection's `run`.

        With `spare` the connection is one of those that are kept for what must not wait.
        """
        config = self._context.config
        idle_timeout_s = config.idle_timeout_s
        return Connection(
            self._guard(DoorRules(door.name == "unix", door.name == "leases", spare)),
            client,
            self._tls if door.name == "listen" else None,
            self._hypercorn,
            self._worker,
            uid=_uid_of(client) if door.name == "unix" else None,
            max_head_bytes=config.max_head_bytes,
            idle_timeout_s=min(idle_timeout_s, SPARE_IDLE_S) if spare else idle_timeout_s,
            on_change=on_change,
            once=spare,
        )

    def _guard(self, rules: DoorRules) -> Guard:
        if rules not in self._guards:
            self._guards[rules] = Guard(self._app, self._context, self._keys, self._budget, rules)
        return self._guards[rules]


def _uid_of(client: ClientStream) -> int | None:
    try:
        return peer_of(client.socket).uid
    except OSError:
        return None  # it is gone already


class _Log(Logger):
    """hypercorn's words for the daemon's log; it opens no file and no handler of its own."""

    def __init__(self, config: Config) -> None:
        config.errorlog = None
        super().__init__(config)

    async def exception(self, message: str, *_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401
        _log.exception(message)


def _hypercorn(handshake_timeout_s: float) -> Config:
    config = Config()
    config.logger_class = _Log
    config.include_server_header = False
    config.alpn_protocols = ["http/1.1"]
    config.ssl_handshake_timeout = handshake_timeout_s
    config.keep_alive_timeout = inf  # connections have deadlines of their own
    config.keep_alive_max_requests = 2**31
    return config
