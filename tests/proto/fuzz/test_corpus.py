"""The corpus and a fixed set of its mutants, quickly; the long run is by hand (see `target`)."""

from itertools import islice

import pytest

from tests.proto.fuzz.target import mutants, read_corpus, run

ENTRIES = read_corpus()


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_of_the_corpus_keeps_its_promises(name: str) -> None:
    run(ENTRIES[name])
    for how in range(16):
        run(bytes([how]) + ENTRIES[name][1:])


@pytest.mark.parametrize("seed", range(4))
def test_mutants_keep_their_promises(seed: int) -> None:
    for data in islice(mutants(list(ENTRIES.values()), seed), 1500):
        run(data)


def test_the_same_seed_makes_the_same_mutants() -> None:
    corpus = list(ENTRIES.values())
    assert list(islice(mutants(corpus, 7), 50)) == list(islice(mutants(corpus, 7), 50))
