"""Fair turns, through a real daemon with the mock backend: `python tests/bench/fairness.py`.

One peer with 100 queued requests beside one with 1; ten equal peers; weights 1, 2 and 4. Peers are
clients of one uid, each on its own connection. Run it from the root of the repository.
"""

import contextlib
import json
import sys
from collections import Counter
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from inferd_proto import FrameReader, FrameType, pack
from tests.support.daemon import running_daemon

SERVICE_MS = 4
TRIES = 20
CONFIG = f"""
[backends.one]
kind = "mock"
first_token_ms = {SERVICE_MS}
max_tokens = 1
slots = 1

[backends.four]
kind = "mock"
first_token_ms = {SERVICE_MS}
max_tokens = 1
slots = 4

[routes.one]
backends = ["one"]
queue_depth = 2000

[routes.four]
backends = ["four"]
queue_depth = 2000

[clients.double]
weight = 2

[clients.fourfold]
weight = 4
"""
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


Answers = trio.MemoryReceiveChannel[str]


class Peer:
    """One client on one connection; tells of each of its answers."""

    def __init__(
        self, label: str, stream: trio.SocketStream, answered: trio.MemorySendChannel[str]
    ) -> None:
        self._label = label
        self._stream = stream
        self._answered = answered

    async def ask(self, route: str, count: int) -> None:
        """So many requests in one write."""
        frames: list[bytes] = []
        for number in range(count):
            request = {"wire_version": 1, "id": f"{number}", "messages": MESSAGES}
            request |= {"model": route, "client": self._label}
            frames.append(pack(FrameType.JSON, json.dumps(request).encode()))
        await self._stream.send_all(b"".join(frames))

    async def listen(self) -> None:
        """Tell of each end, until cancelled."""
        reader = FrameReader()
        while True:
            reader.feed(await self._stream.receive_some())
            while (frame := reader.next()) is not None:
                answer = json.loads(frame.payload or b"")
                if answer["type"] == "error":
                    raise RuntimeError(answer["message"])
                if answer["type"] == "done":
                    await self._answered.send(self._label)


async def run(socket: Path, route: str, counts: dict[str, int], until: int) -> list[str]:
    """Who was answered, in order, until there are that many answers. The first peer asks first."""
    send, receive = trio.open_memory_channel[str](float("inf"))
    async with trio.open_nursery() as nursery:
        for label, count in counts.items():
            peer = Peer(label, await trio.open_unix_socket(str(socket)), send)
            await peer.ask(route, count)
            nursery.start_soon(peer.listen)
        answered = [await receive.receive() for _ in range(until)]
        nursery.cancel_scope.cancel()
    return answered


def jain(shares: list[int]) -> float:
    """1 where all are equal, 1/n where one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


async def one_beside_hundred(socket: Path) -> None:
    """How many of the other's requests end before the single one's."""
    send, answered = trio.open_memory_channel[str](float("inf"))
    greedy = Peer("greedy", await trio.open_unix_socket(str(socket)), send)
    single = Peer("single", await trio.open_unix_socket(str(socket)), send)
    most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(greedy.listen)
        nursery.start_soon(single.listen)
        await greedy.ask("one", 100)
        for _ in range(TRIES):
            await trio.sleep(SERVICE_MS / 1000 * 1.3)
            forget(answered)
            await single.ask("one", 1)
            others = 0
            while await answered.receive() != "single":
                others += 1
            most = max(most, others)
        nursery.cancel_scope.cancel()
    print(f"1 beside 100 queued: {most} completions of the other at most, in {TRIES} tries")


def forget(answered: Answers) -> None:
    """What came before."""
    with contextlib.suppress(trio.WouldBlock):
        while True:
            answered.receive_nowait()


async def main(socket: Path) -> None:
    """Print the figures."""
    await one_beside_hundred(socket)
    for route in ("one", "four"):
        equal = {f"peer{number}": 60 for number in range(10)}
        counts = Counter((await run(socket, route, equal, 500))[40:])
        shares = [counts[label] for label in equal]
        print(f"10 equal peers on {route}: Jain index {jain(shares):.4f}, answers {shares}")
    weighted = {"plain": 200, "double": 200, "fourfold": 200}
    counts = Counter((await run(socket, "one", weighted, 330))[50:])
    print(f"weights 1, 2, 4: answers {[counts[label] for label in weighted]}")


if __name__ == "__main__":
    with running_daemon(config=CONFIG) as daemon:
        trio.run(main, daemon.socket)
