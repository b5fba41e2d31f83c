"""`metrics`: one value for each thing there is, by stable names, and nobody's name."""

import os

from inferd_daemon.backends.base import GenerateRequest
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.metrics import measure, metrics
from inferd_daemon.errors import BackendFault
from inferd_daemon.routing.dispatch import Dispatch
from inferd_daemon.routing.shares import PeerKey
from inferd_proto import Usage
from tests.daemon.fronts.conversation import view_of

PEER = PeerKey(4711, "s3cret-client")


async def test_what_a_dispatch_counts() -> None:
    view = view_of(MockBackend("mock", MockConfig()))
    route = view.router.routes[0]
    for error in (None, BackendFault("it broke")):
        dispatch = Dispatch(route, GenerateRequest([]), PEER)
        try:
            async with dispatch:
                dispatch.answered()
                dispatch.answered()
                dispatch.used(Usage(3, 7))
                if error is not None:
                    raise error
        except BackendFault:
            continue
    families = {family.name: family for family in measure(view)}
    requests = {tuple(s.labels.values()): s.value for s in families["inferd_requests"].samples}
    assert requests == {
        (route.name, "generate", "ok"): 1,
        (route.name, "generate", "backend_unavailable"): 1,
    }
    tokens = {s.labels["direction"]: s.value for s in families["inferd_tokens"].samples}
    assert tokens == {"input": 6, "output": 14}
    assert route.counts.first_tokens_s.count == 2

    told = await metrics(Call(view, Peer(1, os.geteuid(), 0), 1, {}))
    assert "s3cret" not in str(told)
    families_told = told["metrics"]
    assert isinstance(families_told, list)
    assert {"inferd_breaker_state", "inferd_connections", "process_cpu_seconds"} <= {
        family["name"] for family in families_told
    }
