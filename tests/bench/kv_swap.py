"""What `keep_kv` saves when two runtimes take turns in one place: a long prompt, asked again.

    python tests/bench/kv_swap.py [--model FILE] [--tokens 6000] [--layers 6] [--rounds 3]

Needs a llama-server (INFERD_LLAMA_SERVER). Without a model it builds one that costs real work:
its answers mean nothing, its prefill and its caches are those of any model of its size.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import models
from tests.support.daemon import RunningDaemon
from tests.support.lease_client import Json, ask, complete, ensure, leasing_daemon
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import WireClient, connected

CONFIG = """
[limits]
max_runtimes = 1
[backends.asked]
kind = "llama_server"
model = "{model}"
parallel = 1
threads = 2
ctx_size = {context}
keep_kv = {keep}
[backends.other]
kind = "llama_server"
model = "demo"
parallel = 1
threads = 1
[routes.asked]
backends = ["asked"]
[routes.other]
backends = ["other"]
"""


class Turn(NamedTuple):
    """One prompt: tokens known and computed, and milliseconds until the answer could begin."""

    known: int
    computed: int
    prompt_ms: float
    ready_ms: float


def turn(client: WireClient, route: str, prompt: str) -> Turn:
    """Have the runtime, ask it, let it go."""
    began = time.perf_counter()
    ensured = ensure(client, route, ttl_ms=600_000)
    ready_ms = (time.perf_counter() - began) * 1000
    messages = [{"role": "user", "content": prompt}]
    reply = complete(ensured["endpoint"], messages=messages, max_tokens=1, timeout_s=600)
    if reply.status != 200:
        raise SystemExit(f"{route} answers {reply.status}: {reply.body}; try fewer --tokens")
    timings: Json = reply.body["timings"]
    ask(client, "lease.release", lease_ref=ensured["lease"]["lease_ref"])
    return Turn(timings["cache_n"], timings["prompt_n"], timings["prompt_ms"], ready_ms)


def swaps(daemon: RunningDaemon, prompt: str, rounds: int) -> tuple[Turn, list[Turn], list[Turn]]:
    """The first turn, those after each swap, and the other runtime's between them."""
    with connected(daemon.socket, timeout_s=600) as client:
        first = turn(client, "asked", prompt)
        again, between = [], []
        for _ in range(rounds):
            between.append(turn(client, "other", "hi"))
            again.append(turn(client, "asked", prompt))
        return first, again, between


def kept_bytes(daemon: RunningDaemon) -> int:
    """On disk."""
    place = daemon.directory / "run" / "state" / "kv"
    return sum(path.stat().st_size for path in place.glob("*/*.kv"))


def show(name: str, turns: list[Turn], between: list[Turn]) -> None:
    """One line: the median turn after a swap."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    known = median([one.known for one in turns])
    computed = median([one.computed for one in turns])
    prompt_ms = median([one.prompt_ms for one in turns])
    back_ms = median([one.ready_ms for one in turns])
    away_ms = median([one.ready_ms for one in between])
    print(
        f"{name:14} {known:8.0f} {computed:9.0f} {prompt_ms:11.1f} {away_ms:10.1f} {back_ms:10.1f}"
        f" {prompt_ms + back_ms:12.1f}"
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = llama_server_path()
    with tempfile.TemporaryDirectory() as directory:
        model = options.model
        if model is None:
            model = Path(directory) / "built.gguf"
            models.build_generate_model(model, layers=options.layers)
        # A word with its number is five to seven tokens in most vocabularies.
        prompt = " ".join(f"word{number}" for number in range(options.tokens // 7))
        print("after a swap    reused  computed  prompt, ms  away, ms   back, ms  to answer, ms")
        for name, keep in (("keep_kv off", "false"), ("keep_kv on", "true")):
            context = options.tokens + 1024
            config = CONFIG.format(model=model.absolute(), keep=keep, context=context)
            with leasing_daemon(config, server=server) as daemon:
                first, again, between = swaps(daemon, prompt, options.rounds)
                if keep == "false":
                    show("(first turn)", [first], between[:1])
                show(name, again, between)
                if keep == "true":
                    print(f"kept on disk: {kept_bytes(daemon) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
