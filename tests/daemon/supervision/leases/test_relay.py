"""A request waits for a runtime that comes back, and for no other; none gets another's answer."""

from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.base import EngineFailure, Health
from inferd_daemon.engines.failures import Cause, failure
from inferd_daemon.errors import BackendFault, RequestError
from inferd_daemon.supervision.leases import relay
from inferd_daemon.supervision.leases.relay import Comeback, _open, _request
from inferd_daemon.supervision.leasing import Leasing
from inferd_daemon.supervision.runtimes.machine import State
from inferd_proto import ErrorCode
from tests.support.certificate import make_certificate
from tests.support.lone_runtimes import SleepBlueprint, have, leasing
from tests.support.scripted_upstream import serve, whole

BY_FORCE = RequestError(ErrorCode.CONFLICT, "a was stopped by force")
GONE = EngineFailure(failure(Cause.MODEL_MISSING, "`model`: /models/a.gguf: no such file"))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits that long: a test that does has its own, shorter end, and fails."""
    monkeypatch.setattr(relay, "RETURN_PATIENCE_S", 600.0)


async def served(whole: Leasing) -> None:
    with trio.fail_after(20):
        await whole.relay.serving("a")


@pytest.mark.parametrize("ended", [False, True])
async def test_one_stopped_by_force_is_not_waited_for(ended: bool, tmp_path: Path) -> None:
    async with leasing(tmp_path) as whole:
        await have(whole, SleepBlueprint("a", tmp_path))
        runtime = whole.relay.runtime("a")
        whole.runtimes.stop(runtime, BY_FORCE)
        if ended:
            await whole.runtimes.wait_stopped(runtime)
        with pytest.raises(BackendFault, match="stopped by force") as refused:
            await served(whole)
        assert not isinstance(refused.value, Comeback)


async def test_one_that_is_stopped_and_stays_so_is_not_waited_for(tmp_path: Path) -> None:
    async with leasing(tmp_path) as whole:
        await have(whole, SleepBlueprint("a", tmp_path))
        whole.runtimes.stop(whole.relay.runtime("a"))
        with pytest.raises(BackendFault, match="a is stopped until it is restarted") as refused:
            await served(whole)
        assert not isinstance(refused.value, Comeback)


async def test_who_waits_hears_that_it_was_stopped_by_force(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with leasing(tmp_path) as whole, trio.open_nursery() as nursery:
        await have(whole, blueprint)
        blueprint.engine.health = Health.LOADING
        whole.runtimes.kill()
        runtime = whole.relay.runtime("a")
        with trio.fail_after(20):
            while runtime.state is State.READY:
                await whole.runtimes.wait_changed()

        async def stop() -> None:
            await trio.testing.wait_all_tasks_blocked()
            whole.runtimes.stop(runtime, BY_FORCE)

        nursery.start_soon(stop)
        with pytest.raises(BackendFault, match="stopped by force"):
            await served(whole)


async def test_one_that_restarts_is_waited_for(tmp_path: Path) -> None:
    async with leasing(tmp_path) as whole, trio.open_nursery() as nursery:
        await have(whole, SleepBlueprint("a", tmp_path))
        runtime = whole.relay.runtime("a")
        for _ in range(10):
            nursery.start_soon(whole.runtimes.restart, runtime, whole.keeper.pinned("a", 0))
            with trio.fail_after(20):
                while runtime.state is State.READY:
                    await whole.runtimes.wait_changed()
            await served(whole)


async def test_one_that_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with leasing(tmp_path) as whole:
        await have(whole, blueprint)
        blueprint.engine.refusal = GONE
        whole.runtimes.kill()
        runtime = whole.relay.runtime("a")
        with trio.fail_after(20):
            while runtime.state is not State.FAILED:
                await whole.runtimes.wait_changed()
        with pytest.raises(Comeback, match="no such file"):
            await served(whole)


async def test_over_tls_what_is_left_behind_is_nobodys_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.made))
    first = [whole(200, b"alice") + whole(200, b"more of alice")]
    async with serve(
        tmp_path, first, [whole(200, b"bob")], tcp=True, tls=certificate.server()
    ) as upstream:
        endpoint = Endpoint(host="127.0.0.1", port=upstream.port, tls=True)
        transport = await _open(endpoint)
        for answer in (b"alice", b"bob"):
            request = _request(endpoint, "POST", "/v1/x", b"{}", {})
            response = await transport.handle_async_request(request)
            assert await response.aread() == answer
        await transport.aclose()
