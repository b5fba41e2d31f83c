"""Tokens and requests a second of the backend `openai_compat` alone, without the daemon around it.

Run: python tests/bench/openai_compat.py URL [CONCURRENCY] [SECONDS] [TOKENS]
The upstream must stream TOKENS tokens for `max_tokens`; one that is paced shows the CPU per token.
"""

import sys
import time
from contextlib import aclosing

import trio

from inferd_daemon.backends.base import GenerateRequest, Sampling, TextDeltas
from inferd_daemon.backends.openai_compat import OpenAICompatBackend
from inferd_daemon.config import OpenAICompatConfig
from inferd_proto import Message, Text


class Tally:
    """What all tasks together have seen; times in seconds."""

    def __init__(self) -> None:
        self.requests = 0
        self.batches = 0
        self.tokens = 0
        self.first_token_s: list[float] = []

    def quantile_ms(self, share: float) -> float:
        """Of the times to the first token."""
        ordered = sorted(self.first_token_s)
        return ordered[int((len(ordered) - 1) * share)] * 1000


async def run_once(backend: OpenAICompatBackend, tokens: int, tally: Tally) -> None:
    request = GenerateRequest([Message("user", [Text("hi")])], Sampling(max_tokens=tokens))
    started = time.perf_counter()
    first = True
    async with aclosing(backend.generate(request)) as batches:
        async for batch in batches:
            tally.batches += 1
            for event in batch:
                if isinstance(event, TextDeltas):
                    if first:
                        first = False
                        tally.first_token_s.append(time.perf_counter() - started)
                    tally.tokens += len(event.deltas)
    tally.requests += 1


async def main(url: str, concurrency: int, seconds: float, tokens: int) -> None:
    backend = OpenAICompatBackend("bench", OpenAICompatConfig(base_url=url))
    tally = Tally()
    end = time.perf_counter() + seconds

    async def keep_busy() -> None:
        while time.perf_counter() < end:
            await run_once(backend, tokens, tally)

    wall, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(keep_busy)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await backend.close()
    print(
        f"conc {concurrency}  {tally.requests / wall:,.0f} req/s  "
        f"{tally.tokens / wall:,.0f} tok/s  {tally.tokens / tally.batches:.1f} tok/batch  "
        f"CPU {cpu / wall:.0%}, {cpu / tally.tokens * 1e6:.1f} us/tok  "
        f"ttft p50 {tally.quantile_ms(0.5):.2f} p99 {tally.quantile_ms(0.99):.2f} ms"
    )


if __name__ == "__main__":
    given = [*sys.argv[2:], *("8", "3", "256")[len(sys.argv) - 2 :]]
    trio.run(main, sys.argv[1], int(given[0]), float(given[1]), int(given[2]))
