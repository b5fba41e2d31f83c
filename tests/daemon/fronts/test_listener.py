"""The listener as the daemon goes over to its next self."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import trio
import trio.testing

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.fronts.byte_budget import ByteBudget
from inferd_daemon.fronts.listener import Listener
from tests.daemon.fronts.conversation import view_of

ROUNDS = 20
"""Tasks of one turn run in any order: half of the rounds have the pause come first."""


async def test_who_comes_in_the_turn_of_a_pause_goes_over_like_the_others(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        path = tmp_path / f"{number}.sock"
        with ExitStack() as held:
            door = held.enter_context(socket.socket(socket.AF_UNIX))
            door.setblocking(False)
            door.bind(str(path))
            door.listen()
            listener = Listener(
                door,
                view_of(MockBackend("mock", MockConfig())),
                max_connections=8,
                write_timeout_s=60,
                read_timeout_s=60,
                budget=ByteBudget(1 << 20),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.run)
                await trio.testing.wait_all_tasks_blocked()
                client = held.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(path))
                await trio.lowlevel.checkpoint()
                listener.pause()
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(10):
                    await listener.rested()
                handed = listener.hand_over()
                assert len(handed) == listener.accepted
                for one in handed:
                    os.close(one.descriptor)
                nursery.cancel_scope.cancel()
