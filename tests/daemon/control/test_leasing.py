"""The verbs of leases and runtimes by the rights of their caller, without a socket."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.claimant import claimant_of, require_admin
from inferd_daemon.control.daemon_drain import daemon_drain
from inferd_daemon.control.lease_ensure import lease_ensure
from inferd_daemon.control.lease_get import lease_get
from inferd_daemon.control.lease_list import lease_list
from inferd_daemon.control.lease_release import lease_release
from inferd_daemon.control.lease_renew import lease_renew
from inferd_daemon.control.logs import logs
from inferd_daemon.control.runtime_get import runtime_get
from inferd_daemon.control.runtime_list import runtime_list
from inferd_daemon.control.runtime_stop import runtime_stop
from inferd_daemon.control.view import DaemonView
from inferd_daemon.control.watch import watch
from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases.socket_access import former_of
from inferd_daemon.supervision.leasing import Leasing
from inferd_proto import ErrorCode, LeaseEnsure
from tests.daemon.fronts.conversation import view_of
from tests.support.lone_runtimes import SleepBlueprint, have, leasing
from tests.support.processes import until

ME = Peer(1, os.geteuid(), os.getegid())
STRANGER = Peer(2, 12345, 12345)
MEMBER = Peer(3, 12346, 12346, (777,))


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Leasing]:
    async with leasing(tmp_path) as one:
        yield one


@pytest.fixture
def view(whole: Leasing) -> DaemonView:
    made = view_of(MockBackend("mock", MockConfig()))
    made.leasing = whole
    made.admin_group = 777
    return made


def call(view: DaemonView, peer: Peer = ME, **arguments: object) -> Call:
    return Call(view, peer, peer.pid, dict(arguments))


async def code_of(awaitable: object) -> ErrorCode:
    with pytest.raises(RequestError) as refused:
        await awaitable  # type: ignore[misc]
    return refused.value.code


async def test_who_is_an_administrator() -> None:
    view = view_of(MockBackend("mock", MockConfig()))
    root = Peer(9, 0, 0)
    assert [claimant_of(call(view, peer)).admin for peer in (ME, root, MEMBER)] == [
        True,
        True,
        os.geteuid() == MEMBER.uid,
    ]
    view.admin_group = 777
    assert claimant_of(call(view, MEMBER)).admin
    assert not claimant_of(call(view, STRANGER)).admin
    with pytest.raises(RequestError, match="admin group"):
        require_admin(call(view, STRANGER))


async def test_a_stranger_sees_and_touches_nothing_of_others(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    lease = (await have(whole, SleepBlueprint("a", tmp_path))).lease
    ref = {"lease_ref": lease.lease_ref}
    assert await lease_list(call(view, STRANGER)) == {"leases": []}
    assert await runtime_list(call(view, STRANGER)) == {"runtimes": []}
    denied = ErrorCode.PERMISSION_DENIED
    assert await code_of(lease_get(call(view, STRANGER, **ref))) is denied
    assert await code_of(lease_renew(call(view, STRANGER, ttl_ms=1000, **ref))) is denied
    assert await code_of(lease_release(call(view, STRANGER, **ref))) is denied
    assert await code_of(runtime_stop(call(view, STRANGER, instance_key="a"))) is denied
    assert await code_of(daemon_drain(call(view, STRANGER))) is denied
    assert await code_of(runtime_get(call(view, STRANGER, instance_key="a"))) is (
        ErrorCode.NOT_FOUND
    )
    async with aclosing(logs(call(view, STRANGER, instance_key="a"))) as lines:
        with pytest.raises(RequestError):
            await anext(lines)
    assert not view.stop_asked.is_set()


async def test_the_admin_group_may_do_everything(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    lease = (await have(whole, SleepBlueprint("a", tmp_path))).lease
    listed = await lease_list(call(view, MEMBER, instance_key="a"))
    assert listed["leases"][0]["lease_ref"] == lease.lease_ref  # type: ignore[index]
    assert await code_of(runtime_stop(call(view, MEMBER, instance_key="a"))) is ErrorCode.CONFLICT
    with trio.fail_after(30):
        stopped = await runtime_stop(call(view, MEMBER, instance_key="a", force=True))
    assert (stopped["state"], stopped["leases"]) == ("stopped", 0)
    await daemon_drain(call(view, MEMBER))
    assert view.draining
    assert view.stop_asked.is_set()


async def test_a_stranger_watches_its_own_alone(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    seen: list[object] = []
    async with trio.open_nursery() as nursery:

        async def watching() -> None:
            async with aclosing(watch(call(view, STRANGER))) as changes:
                async for change in changes:
                    seen.append(change)  # noqa: PERF401 (others look while it grows)

        nursery.start_soon(watching)
        await trio.testing.wait_all_tasks_blocked()
        await have(whole, SleepBlueprint("a", tmp_path))
        whole.changes.tell({"type": "route", "route": {"name": "r"}})
        with trio.fail_after(30):
            while len(seen) < 2:  # noqa: ASYNC110 (the other task appends)
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert seen[0] == {**dict(seen[0]), "runtimes": [], "leases": []}  # type: ignore[call-overload]
    assert seen[1:] == [{"type": "route", "route": {"name": "r"}}]


async def test_a_draining_daemon_grants_nothing(view: DaemonView) -> None:
    view.draining = True
    asked = call(view, target={"model": "/m.gguf"})
    assert await code_of(lease_ensure(asked)) is ErrorCode.BACKEND_UNAVAILABLE


async def test_a_route_without_an_endpoint_is_incompatible(view: DaemonView) -> None:
    assert (
        await code_of(lease_ensure(call(view, target=view.router.routes[0].name)))
        is ErrorCode.INCOMPATIBLE
    )
    assert await code_of(lease_ensure(call(view, target="nowhere"))) is ErrorCode.NOT_FOUND


async def test_logs_show_the_last_lines_and_follow(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    script = (
        "for n in 1 2 3 4 5; do echo line $n; done; "
        f"until [ -e '{go_on}' ]; do sleep 0.02; done; echo late; exec sleep 600"
    )
    await have(whole, SleepBlueprint("a", tmp_path, script=script))
    runtime = whole.runtimes.get("a")
    assert runtime is not None
    written = runtime.supervisor.log.path
    await until(lambda: "line 5\n" in written.read_text(), 30)
    async with aclosing(logs(call(view, instance_key="a", lines=2))) as lines:
        assert [line async for line in lines] == [{"line": "line 4"}, {"line": "line 5"}]
    with trio.fail_after(30):
        async with aclosing(logs(call(view, instance_key="a", lines=1, follow=True))) as lines:
            assert await anext(lines) == {"line": "line 5"}
            go_on.touch()
            assert await anext(lines) == {"line": "late"}


async def test_logs_are_for_who_holds_the_runtime_and_as_long_as_they_do(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    blueprint = SleepBlueprint("a", tmp_path, script="echo secret; exec sleep 600")
    blueprint.route = "a"
    await have(whole, blueprint)
    assert (await runtime_get(call(view, STRANGER, instance_key="a")))["name"] == "a"
    denied = call(view, STRANGER, instance_key="a")
    assert await code_of(anext(logs(denied))) is ErrorCode.PERMISSION_DENIED
    asked = LeaseEnsure(target="a", transport="uds")
    held = await whole.keeper.grant("a", asked, claimant_of(denied), None)
    following = call(view, STRANGER, instance_key="a", follow=True)
    async with aclosing(logs(following)) as lines:
        with trio.fail_after(30):
            assert await anext(lines) == {"line": "secret"}
            await whole.keeper.release(held.lease_ref, claimant_of(denied))
            runtime = whole.runtimes.get("a")
            assert runtime is not None
            runtime.supervisor.log.note("of another")
            assert await code_of(anext(lines)) is ErrorCode.PERMISSION_DENIED


async def test_who_follows_a_log_goes_on_with_its_runtime_and_ends_with_it(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    await have(whole, blueprint)
    runtime = whole.runtimes.get("a")
    assert runtime is not None
    runtime.supervisor.log.note("first")
    told: list[object] = []
    ended = trio.Event()

    async def follow() -> None:
        async with aclosing(logs(call(view, instance_key="a", follow=True))) as lines:
            async for line in lines:
                told.append(line)  # noqa: PERF401 (looked at meanwhile)
        ended.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            await runtime_stop(call(view, instance_key="a", force=True))
            other = SleepBlueprint("a", tmp_path / "other")
            renewed = whole.runtimes.renew(runtime, other, former_of(runtime))
            renewed.supervisor.log.note("second")
            await trio.testing.wait_all_tasks_blocked()
            assert told == [{"line": "first"}, {"line": "second"}]
            whole.runtimes.remove(renewed)
            await ended.wait()


async def test_without_leasing_the_verbs_say_so() -> None:
    view = view_of(MockBackend("mock", MockConfig()))
    assert await code_of(lease_list(call(view))) is ErrorCode.BACKEND_UNAVAILABLE
