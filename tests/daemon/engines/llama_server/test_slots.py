"""The API of slots, by what servers answer; the real ones answer in test_kv_keeper.py."""

from pathlib import Path

import pytest

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.llama_server.slots import (
    Slot,
    SlotError,
    SlotRefused,
    list_slots,
    read_build,
    restore_slot,
    save_slot,
)
from tests.support.scripted_upstream import Close, ScriptedUpstream, Step, serve, whole


def endpoint(upstream: ScriptedUpstream) -> Endpoint:
    assert upstream.uds is not None
    return Endpoint(uds=Path(upstream.uds), key="k", api_prefix="/pre")


async def test_slots_are_listed(tmp_path: Path) -> None:
    listed = b'[{"id":0,"n_ctx":9,"is_processing":true},{"id":1,"is_processing":false,"params":{}}]'
    async with serve(tmp_path, [whole(200, b"{}"), Close()], [whole(200, listed)]) as upstream:
        assert await list_slots(endpoint(upstream)) == [Slot(0, is_processing=True), Slot(1)]
    assert [one.path for one in upstream.requests] == ["/pre/props", "/pre/slots"]


async def test_a_server_that_sleeps_is_let_sleep(tmp_path: Path) -> None:
    async with serve(tmp_path, [whole(200, b'{"is_sleeping":true}')]) as upstream:
        assert await list_slots(endpoint(upstream)) == []
    assert [one.path for one in upstream.requests] == ["/pre/props"]


async def test_what_is_asked_and_answered(tmp_path: Path) -> None:
    replies = [b'{"n_saved":61,"n_written":8864}', b'{"n_restored":61}', b'{"build_info":"b1-f"}']
    scripts: list[list[Step]] = [[whole(200, body), Close()] for body in replies]
    async with serve(tmp_path, *scripts) as upstream:
        assert await save_slot(endpoint(upstream), 3, "slot-3.new") == 61
        assert await restore_slot(endpoint(upstream), 3, "slot-3.kv") == 61
        assert await read_build(endpoint(upstream)) == "b1-f"
    saved, restored, _ = upstream.requests
    assert (saved.method, saved.path) == ("POST", "/pre/slots/3?action=save")
    assert saved.body == b'{"filename":"slot-3.new"}'
    assert saved.headers["authorization"] == "Bearer k"
    assert restored.path == "/pre/slots/3?action=restore"


@pytest.mark.parametrize(
    ("steps", "refused"),
    [
        ([whole(501, b'{"error":{"message":"no slots"}}')], True),
        ([whole(400, b"")], True),
        ([whole(200, b"not json")], False),
        ([Close()], False),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", Close()], False),
    ],
)
async def test_a_refusal_is_told_from_a_death(
    tmp_path: Path, steps: list[Step], *, refused: bool
) -> None:
    async with serve(tmp_path, steps) as upstream:
        with pytest.raises(SlotError) as caught:
            await restore_slot(endpoint(upstream), 0, "slot-0.kv")
    assert isinstance(caught.value, SlotRefused) is refused
