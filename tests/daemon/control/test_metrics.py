"""`metrics`: one value for each thing there is, by stable names, and nobody's name."""

import os
from contextlib import aclosing
from pathlib import Path

from inferd_daemon.backends.base import GenerateRequest
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.backends.openai_compat import OpenAICompatBackend
from inferd_daemon.config import MockConfig, OpenAICompatConfig
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.metrics import measure, metrics
from inferd_daemon.control.view import DaemonView
from inferd_daemon.errors import BackendFault
from inferd_daemon.routing.dispatch import Dispatch
from inferd_daemon.routing.shares import PeerKey
from inferd_proto import Message, Text, Usage
from tests.daemon.fronts.conversation import view_of
from tests.support.scripted_upstream import EVENTS_HEAD, Script, chunk, serve

HI = [Message("user", [Text("hi")])]
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


async def test_malformed_lines_are_counted_for_each_backend_that_reads_lines(
    tmp_path: Path,
) -> None:
    rubbish = b"data: {oh\n\n<p>no\n"
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    answer: Script = [EVENTS_HEAD + chunk(rubbish + end) + b"0\r\n\r\n"]
    async with serve(tmp_path, answer, answer) as upstream:
        backend = OpenAICompatBackend("told", OpenAICompatConfig(uds=upstream.uds))
        view = view_of(backend)
        assert dropped_lines(view) == {"told": 0}
        for total in (2, 4):
            async with aclosing(backend.generate(GenerateRequest(HI))) as batches:
                assert [batch async for batch in batches]
            assert dropped_lines(view) == {"told": total}
        await backend.close()
    assert dropped_lines(view_of(MockBackend("mock", MockConfig()))) == {}


def dropped_lines(view: DaemonView) -> dict[str, object]:
    (family,) = (one for one in measure(view) if one.name == "inferd_backend_dropped_lines")
    assert family.kind == "counter"
    return {sample.labels["backend"]: sample.value for sample in family.samples}
