"""Specs that are asked for again and again are read once, and checked each time."""

from pathlib import Path

import pytest

from inferd_daemon.errors import CallerFault, RequestError
from inferd_daemon.supervision.leases.blueprints import (
    KEPT_SPECS,
    MAX_KEPT_BYTES,
    SpecReader,
    boot_reader,
)
from inferd_daemon.supervision.runtimes.boot_blueprint import Site
from inferd_proto import JsonObject

SPEC: JsonObject = {"model": "/m/a.gguf", "ctx_size": 512}


@pytest.fixture
def read(tmp_path: Path) -> SpecReader:
    return boot_reader(Site(tmp_path, tmp_path, {}), idle_ttl_s=None, allow_remote=False)


def test_one_that_is_asked_for_again_is_the_same(read: SpecReader) -> None:
    assert read(SPEC, False) is read(dict(SPEC), True)
    other = read({**SPEC, "ctx_size": 1024}, True)
    assert other.instance_key != read(SPEC, True).instance_key
    # Not part of the key, and yet another spec.
    named = read({**SPEC, "model_identity": "x"}, True)
    assert (named.instance_key, named.model_identity) == (read(SPEC, True).instance_key, "x")


def test_what_an_administrator_was_given_is_still_not_everybodys(read: SpecReader) -> None:
    spec: JsonObject = {**SPEC, "extra_args": ["--no-warmup"]}
    read(spec, True)
    with pytest.raises(RequestError, match="extra_args"):
        read(spec, False)


def test_what_is_wrong_is_told_each_time(read: SpecReader) -> None:
    for _ in range(2):
        with pytest.raises(CallerFault, match="ctx_size"):
            read({**SPEC, "ctx_size": -1}, True)


def test_neither_many_nor_large_ones_are_kept(read: SpecReader) -> None:
    first = read(SPEC, True)
    for number in range(KEPT_SPECS):
        read({**SPEC, "threads": number + 1}, True)
    assert read(SPEC, True) is not first
    large: JsonObject = {**SPEC, "environment": {"A": "x" * MAX_KEPT_BYTES}}
    assert read(large, True) is not read(large, True)
