"""What `inferdctl --version` takes above a bare interpreter: `python -m tests.bench.startup`."""

import statistics
import subprocess
import sys
import time

ROUNDS = 20
ALLOWED_MS = 150


def once_ms(*argv: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *argv], check=True, capture_output=True)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Both in turns, so that a machine that slows down slows both."""
    bare, command = [], []
    for _ in range(ROUNDS):
        bare.append(once_ms("-c", "pass"))
        command.append(once_ms("-m", "inferd_client.ctl", "--version"))
    added = statistics.median(command) - statistics.median(bare)
    print(
        f"bare {statistics.median(bare):.0f} ms, --version {statistics.median(command):.0f} ms: "
        f"+{added:.0f} ms (asked: {ALLOWED_MS})"
    )


if __name__ == "__main__":
    main()
