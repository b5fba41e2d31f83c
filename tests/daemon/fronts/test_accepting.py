"""Clients that come together are taken together, without keeping the loop from the others."""

import socket
from contextlib import ExitStack

import trio

from inferd_daemon.fronts.accepting import AT_A_TIME, Acceptor


async def turns_for(clients: int) -> int:
    """In how many turns of the loop so many that wait already are accepted."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with ExitStack() as stack:
        # Over TCP the kernel may put a client in line only after its `connect` has returned.
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        door.bind("")  # a name of the kernel's choice
        door.listen(4 * AT_A_TIME)
        door.setblocking(False)
        for _ in range(clients):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(door.getsockname())
        acceptor = Acceptor(door)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_turns)
                for _ in range(clients):
                    stack.enter_context(await acceptor.accept())
                nursery.cancel_scope.cancel()
    return turns


async def test_who_comes_together_is_taken_together() -> None:
    assert await turns_for(AT_A_TIME) <= await turns_for(1) + 1


async def test_a_flood_lets_others_run() -> None:
    # Of the last of its turns nobody knows whether it comes before theirs.
    assert await turns_for(4 * AT_A_TIME) >= 3


async def test_it_waits_for_the_next_client_and_can_be_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        acceptor = Acceptor(door)
        for _ in range(2):
            with socket.create_connection(door.getsockname()), trio.fail_after(30):
                (await acceptor.accept()).close()
            with trio.move_on_after(0.01) as scope:
                await acceptor.accept()
            assert scope.cancelled_caught


async def test_a_cancelled_wait_takes_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        acceptor = Acceptor(door)
        with (
            socket.create_connection(door.getsockname()),
            socket.create_connection(door.getsockname()),
            trio.fail_after(30),
        ):
            (await acceptor.accept()).close()
            with trio.CancelScope() as scope:
                scope.cancel()
                await acceptor.accept()
            assert scope.cancelled_caught
            (await acceptor.accept()).close()
