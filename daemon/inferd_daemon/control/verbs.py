"""The tables of control verbs: those that answer once, and those that stream."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from inferd_proto import ErrorCode

from ..errors import RequestError
from .agent_list import agent_list
from .call import Call
from .capabilities import capabilities
from .config_reload import config_reload
from .daemon_drain import daemon_drain
from .daemon_upgrade import daemon_upgrade
from .lease_ensure import lease_ensure
from .lease_get import lease_get
from .lease_list import lease_list
from .lease_release import lease_release
from .lease_renew import lease_renew
from .logs import logs
from .metrics import metrics
from .route_list import route_list
from .runtime_get import runtime_get
from .runtime_list import runtime_list
from .runtime_restart import runtime_restart
from .runtime_stop import runtime_stop
from .status import status
from .watch import watch

Verb = Callable[[Call], Awaitable[object]]
StreamVerb = Callable[[Call], AsyncGenerator[object, None]]

VERBS: dict[str, Verb] = {
    "agent.list": agent_list,
    "capabilities": capabilities,
    "config.reload": config_reload,
    "daemon.drain": daemon_drain,
    "daemon.upgrade": daemon_upgrade,
    "lease.ensure": lease_ensure,
    "lease.get": lease_get,
    "lease.list": lease_list,
    "lease.release": lease_release,
    "lease.renew": lease_renew,
    "metrics": metrics,
    "route.list": route_list,
    "runtime.get": runtime_get,
    "runtime.list": runtime_list,
    "runtime.restart": runtime_restart,
    "runtime.stop": runtime_stop,
    "status": status,
}
"""Answer with one plain JSON value."""

STREAMS: dict[str, StreamVerb] = {"logs": logs, "watch": watch}
"""Answer with plain JSON values, one after the other, until they end or the caller cancels."""


def unknown_op(op: str) -> RequestError:
    """There is no such operation; names those that there are."""
    known = ", ".join(sorted(["cancel", "embed", "generate", "rerank", *VERBS, *STREAMS]))
    return RequestError(ErrorCode.INVALID_REQUEST, f"unknown op {op[:80]!r}; there is {known}")
