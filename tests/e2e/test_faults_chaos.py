"""A few cycles of `tests/bench/chaos.py`: random kills under load, and nothing left behind."""

import pytest

from tests.support.chaos import Chaos
from tests.support.llama_server import llama_server_path

CYCLES = 4


@pytest.mark.parametrize("seed", [3, 11])
def test_random_kills_under_load_leave_nothing_behind(seed: int) -> None:
    with Chaos(llama_server_path(), seed, owners=2, streams=1) as chaos:
        deeds = [chaos.cycle() for _ in range(CYCLES)]
        chaos.finish()
    print(f"seed {seed}: {deeds}, {dict(chaos.figures)}")
    assert chaos.complaints.wrong == []
    assert chaos.complaints.counts["leases granted"]
