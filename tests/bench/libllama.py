"""What the way through a worker costs: the backend against the same engine called in process.

    python tests/bench/libllama.py

Tiny endless model, one thread; 1 and 4 streams; rounds that take turns, the best of each
(what else the machine does only takes away); first tokens by median. No test: it asserts nothing.
"""

import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from contextlib import aclosing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import structlog
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.models import build_generate_model
from tests.support.serving import Serving, ask, serving

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

TOKENS = 400
STREAMS = (1, 4)
ROUNDS = 10
SHORT_REQUESTS = 40


class Direct:
    """The engine in this process, by callbacks."""

    def __init__(self, model: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.hostnames = [str(model.with_suffix(".direct.sock"))]
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.n_parallel = max(STREAMS)
        params.verbosity = 1
        self._server = xllamacpp.Server(params)

    def first_token_s(self, tokens: int) -> float:
        """Run one stream to its end; when its first token came."""
        begun = time.perf_counter()
        first: list[float] = []

        def take(chunk: dict[str, Any]) -> bool:
            choices = chunk.get("choices")
            if not first and choices and choices[0]["delta"].get("content"):
                first.append(time.perf_counter() - begun)
            return False

        body = {"messages": [{"role": "user", "content": "Well?"}], "max_tokens": tokens}
        self._server.handle_chat_completions(body | {"stream": True, "temperature": 0}, take)
        return first[0]

    def tokens_per_s(self, streams: int) -> float:
        """Run so many streams at once."""
        begun = time.perf_counter()
        threads = [
            threading.Thread(target=self.first_token_s, args=(TOKENS,)) for _ in range(streams)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return streams * TOKENS / (time.perf_counter() - begun)


def serve_direct(model: Path, pipe: "Connection[float, int]") -> None:
    """The child: a number of streams in, tokens a second out; 0 in, a first token's seconds out."""
    direct = Direct(model)
    direct.first_token_s(TOKENS)
    pipe.send(0)
    while (streams := pipe.recv()) >= 0:
        pipe.send(direct.tokens_per_s(streams) if streams else direct.first_token_s(2))
    os._exit(0)


async def first_token_s(served: Serving, tokens: int) -> float:
    """Run one stream through the backend; when its first token came."""
    begun = time.perf_counter()
    first = 0.0
    async with aclosing(served.backend.generate(ask(max_tokens=tokens))) as batches:
        async for _ in batches:
            first = first or time.perf_counter() - begun
    return first


async def tokens_per_s(served: Serving, streams: int) -> float:
    """Run so many streams at once through the backend."""
    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(first_token_s, served, TOKENS)
    return streams * TOKENS / (time.perf_counter() - begun)


async def compare(model: Path, directory: Path, pipe: "Connection[int, float]") -> None:
    """Turn and turn about, so that what else the machine does hits both."""

    def direct(streams: int) -> float:
        pipe.send(streams)
        return pipe.recv()

    async with serving(directory, model, parallel=max(STREAMS)) as served:
        await first_token_s(served, TOKENS)
        for streams in STREAMS:
            pairs = [(await tokens_per_s(served, streams), direct(streams)) for _ in range(ROUNDS)]
            ours, theirs = (max(rates) for rates in zip(*pairs, strict=True))
            print(
                f"{streams} streams: backend {ours:,.0f} tokens/s, in process {theirs:,.0f}, "
                f"ratio {ours / theirs:.2f}"
            )
        firsts = [(await first_token_s(served, 2), direct(0)) for _ in range(SHORT_REQUESTS)]
        ours, theirs = (median(times) * 1000 for times in zip(*firsts, strict=True))
        print(f"first token: backend {ours:.2f} ms, in process {theirs:.2f} ms")


def main() -> None:
    """Print both, side by side."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model = directory / "endless.gguf"
        build_generate_model(model)
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.Process(target=serve_direct, args=(model, theirs))
        child.start()
        ours.recv()
        trio.run(compare, model, directory, ours)
        ours.send(-1)
        child.join()


if __name__ == "__main__":
    main()
