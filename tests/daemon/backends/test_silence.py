"""Requests that an engine forgot end in bounded time; those it may work on are left alone."""

from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.backends.chat_client import ChatClient
from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.backends.silence import LOOK_S, LOOKS, SILENT_S, Silence, busy_slots
from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.errors import BackendFault
from inferd_proto import ErrorCode
from tests.support.serving import answer, ask, serving

BOUND_S = SILENT_S + (LOOKS + 1) * LOOK_S


async def never() -> None:
    await trio.sleep_forever()


async def wait_under(busy: int | None, give_up_s: float) -> BackendFault | None:
    """What a request that never ends gets from an engine with so many busy slots."""

    async def count() -> int | None:
        await trio.lowlevel.checkpoint()
        return busy

    silence = Silence(count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(silence.run)
        with trio.move_on_after(give_up_s):
            try:
                await silence.first(never())
            except BackendFault as fault:
                return fault
            finally:
                nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    return None


async def test_a_forgotten_request_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    fault = await wait_under(busy=0, give_up_s=BOUND_S)
    assert fault is not None
    assert fault.code is ErrorCode.BACKEND_UNAVAILABLE
    assert trio.current_time() > SILENT_S


@pytest.mark.parametrize("busy", [1, None])
async def test_an_engine_that_works_or_does_not_say_may_take_its_time(
    autojump_clock: trio.testing.MockClock, busy: int | None
) -> None:
    assert await wait_under(busy, give_up_s=10 * BOUND_S) is None


async def test_an_engine_that_was_idle_for_a_moment_forgets_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    looks = 0

    async def count() -> int:
        nonlocal looks
        await trio.lowlevel.checkpoint()
        looks += 1
        return int(looks % LOOKS == 0)

    silence = Silence(count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(silence.run)
        with trio.move_on_after(10 * BOUND_S) as scope, suppress(BackendFault):
            await silence.first(never())
        assert scope.cancelled_caught
        assert looks > LOOKS
        nursery.cancel_scope.cancel()


async def test_a_real_engine_tells_how_many_slots_work(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        endpoint = demo.supervisor.endpoint
        for key, told in ((endpoint.key, 0), ("wrong", None)):
            client = ChatClient(
                PlainTransport(uds=str(endpoint.uds)), dialect=DIALECTS["llama_server"], api_key=key
            )
            assert await busy_slots(client) == told
            await client.aclose()
        assert (await answer(demo.backend, ask(max_tokens=1))).finished
