"""Kills the daemon and its servers at random under load, and tells what broke and how long it took.

    INFERD_LLAMA_SERVER=... python tests/bench/chaos.py [CYCLES [SEED]]

Exits with 1 where anything did not hold. The tests run a few cycles of the same.
"""

import secrets
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.chaos import Chaos
from tests.support.llama_server import llama_server_path

CYCLES = 50


def main() -> None:
    """Run it and print one line for each cycle, then the counts and figures."""
    cycles = int(sys.argv[1]) if len(sys.argv) > 1 else CYCLES
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else secrets.randbelow(1 << 31)
    print(f"{cycles} cycles, seed {seed}")
    began, told = time.monotonic(), 0
    with Chaos(llama_server_path(), seed) as chaos:
        wrong = chaos.complaints.wrong
        for number in range(cycles):
            at, deed = time.monotonic(), chaos.cycle()
            print(f"{number + 1:3} {deed:30} {time.monotonic() - at:6.2f} s", flush=True)
            for text in wrong[told:]:
                print("    WRONG:", text, flush=True)
            told = len(wrong)
        chaos.finish()
        if wrong:
            print(chaos.daemon.log[-20_000:], file=sys.stderr)
        for text in wrong[told:]:
            print("WRONG:", text)
    for what, count in sorted(chaos.complaints.counts.items()):
        print(f"{count:8} {what}")
    for what, seconds in sorted(chaos.figures.items()):
        millis = [1000 * one for one in seconds]
        print(f"{median(millis):8.1f} ms p50 {max(millis):8.1f} max {len(millis):4} x {what}")
    print(f"{len(wrong)} wrong, {time.monotonic() - began:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
