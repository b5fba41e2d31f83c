"""What callers get wrong is told by name and field, before anything is started for it."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import models
from tests.support.daemon import RunningDaemon
from tests.support.lease_client import (
    MODEL,
    Json,
    Refused,
    as_user,
    ask,
    boot,
    ensure,
    leases,
    leasing_daemon,
    runtimes,
)
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import WireClient, connected

NOBODY = 65534
LONG = "x" * 100_000


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    with leasing_daemon('[limits]\nidle_ttl = "0.2s"\n', server=llama_server_path()) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[WireClient]:
    with connected(daemon.socket) as connected_client:
        yield connected_client


SPECS: list[tuple[Json, str]] = [
    (boot(model=None), "model"),
    (boot(model=""), "model"),
    (boot(model=7), "model"),
    (boot(model="a\0b"), "model"),
    (boot(model="relative.gguf"), "model"),
    (boot(model=LONG), "model"),
    (boot(mmproj="/nowhere/mmproj.gguf"), "mmproj"),
    (boot(modle=MODEL), "modle"),
    (boot(port=70_000), "port"),
    (boot(port=-1), "port"),
    (boot(port="80"), "port"),
    (boot(port=True), "port"),
    (boot(host="127.0.0.1"), "host"),
    (boot(host="192.0.2.1", port=0), "host"),
    (boot(host="localhost.evil.example", port=0), "host"),
    (boot(ctx_size=-1), "ctx_size"),
    (boot(ctx_size=2**40), "ctx_size"),
    (boot(ctx_size=0.5), "ctx_size"),
    (boot(threads=0), "threads"),
    (boot(parallel=0), "parallel"),
    (boot(gpu_layers="some"), "gpu_layers"),
    (boot(flash_attn="maybe"), "flash_attn"),
    (boot(pooling="sum"), "pooling"),
    (boot(embeddings="yes"), "embeddings"),
    (boot(api_key="a", api_key_file="/etc/hostname"), "api_key_file"),
    (boot(api_key="two words"), "api_key"),
    (boot(api_key_file="/nowhere/key"), "api_key_file"),
    (boot(ready_timeout_ms=0), "ready_timeout_ms"),
    (boot(health_interval_ms="often"), "health_interval_ms"),
    (boot(execution_surface={"kind": "ssh_exec", "host": "h"}), "execution_surface"),
    (boot(execution_surface="guest_bridge"), "execution_surface"),
    (boot(environment={"A=B": "c"}), "environment"),
    (boot(environment={"A": 1}), "environment"),
    (boot(extra_args=["--host", "0.0.0.0"]), "extra_args"),
    (boot(extra_args=["--model=/other.gguf"]), "extra_args"),
    (boot(extra_args=["--api-key", "in argv"]), "extra_args"),
    (boot(extra_args=["-c", "9"]), "extra_args"),
    (boot(extra_args="--verbose"), "extra_args"),
    (boot(metadata=[]), "metadata"),
]


@pytest.mark.parametrize(
    ("spec", "field"), SPECS, ids=[f"{number}-{field}" for number, (_, field) in enumerate(SPECS)]
)
def test_spec(shared: WireClient, spec: Json, field: str) -> None:
    with pytest.raises(Refused) as refused:
        ensure(shared, spec)
    assert refused.value.code == "invalid_request"
    assert field in refused.value.message
    assert len(refused.value.message) < 2000
    assert "in argv" not in refused.value.message
    assert not any(runtime["pid"] for runtime in runtimes(shared))


OPERATIONS: list[tuple[str, Json, str]] = [
    ("lease.ensure", {}, "target"),
    ("lease.ensure", {"target": None}, "target"),
    ("lease.ensure", {"target": [MODEL]}, "target"),
    ("lease.ensure", {"target": boot(), "ttl_ms": 0}, "ttl_ms"),
    ("lease.ensure", {"target": boot(), "ttl_ms": -5}, "ttl_ms"),
    ("lease.ensure", {"target": boot(), "ttl_ms": 1.5}, "ttl_ms"),
    ("lease.ensure", {"target": boot(), "ttl_ms": 2**70}, "ttl_ms"),
    ("lease.ensure", {"target": boot(), "bind": "forever"}, "bind"),
    ("lease.ensure", {"target": boot(), "transport": "smoke"}, "transport"),
    ("lease.ensure", {"target": boot(), "wait_ms": -1}, "wait_ms"),
    ("lease.ensure", {"target": boot(), "owner_ref": LONG}, "owner_ref"),
    ("lease.ensure", {"target": boot(), "consumer": "me"}, "consumer"),
    ("lease.renew", {"ttl_ms": 5000}, "lease_ref"),
    ("lease.renew", {"lease_ref": "x", "ttl_ms": None}, "ttl_ms"),
    ("lease.renew", {"lease_ref": "x", "ttl_ms": 999}, "ttl_ms"),
    ("lease.release", {}, "lease_ref"),
    ("lease.release", {"lease_ref": 7}, "lease_ref"),
    ("lease.list", {"uid": "root"}, "uid"),
    ("runtime.stop", {"instance_key": ["*"]}, "instance_key"),
    ("runtime.stop", {"instance_key": "x", "force": "yes"}, "force"),
    ("logs", {"instance_key": "x", "lines": -1}, "lines"),
]


@pytest.mark.parametrize(
    ("op", "fields", "named"),
    OPERATIONS,
    ids=[f"{number}-{op}-{named}" for number, (op, _, named) in enumerate(OPERATIONS)],
)
def test_operation(shared: WireClient, op: str, fields: Json, named: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(shared, op, **fields)
    assert refused.value.code == "invalid_request"
    assert named in refused.value.message
    assert leases(shared) == []


@pytest.fixture(scope="module")
def shared() -> Iterator[WireClient]:
    """Of one daemon for all: not one of them may change anything."""
    with (
        leasing_daemon(server=llama_server_path()) as running,
        connected(running.socket) as connected_client,
    ):
        yield connected_client
        assert "runtime started" not in running.events()


def test_models_that_are_none(daemon: RunningDaemon, client: WireClient, tmp_path: Path) -> None:
    whole, path = Path(MODEL), tmp_path / "model.gguf"
    os.mkfifo(tmp_path / "pipe")
    for name, cause in ((tmp_path, "directory"), (tmp_path / "pipe", "regular")):
        with pytest.raises(Refused, match=cause) as refused:
            ensure(client, boot(model=str(name)))
        assert refused.value.code == "invalid_request"
    spoilers: dict[str, list[Callable[[], object]]] = {
        "model_corrupt": [
            lambda: path.write_bytes(b""),
            lambda: path.write_bytes(b"GGUF"),
            lambda: models.truncate(whole, path, keep=0.05),
            lambda: models.truncate(whole, path, keep=0.9),
            lambda: models.spoil_magic(whole, path),
        ],
        "model_unsupported": [lambda: models.spoil_version(whole, path)],
    }
    for cause, spoil in ((cause, one) for cause, group in spoilers.items() for one in group):
        spoil()
        with pytest.raises(Refused) as refused:
            ensure(client, boot(model=str(path)))
        assert refused.value.code == "invalid_request"
        assert refused.value.details["cause"] == cause
        assert leases(client) == []
    path.write_bytes(whole.read_bytes())
    assert ensure(client, boot(model=str(path)))["lease"]["lease_ref"] in leases(client)


def test_ports_in_use(client: WireClient) -> None:
    taken = ensure(client, boot(port=0), transport="tcp")["endpoint"]["base_url"]
    port = int(taken.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", 0)) as other:
        for number in (port, other.getsockname()[1]):
            with pytest.raises(Refused, match="`port`") as refused:
                ensure(client, boot(port=number))
            assert refused.value.code == "conflict"
            assert refused.value.details["cause"] == "address_unusable"


def test_releasing_what_was_never_there_succeeds_and_renewing_does_not(client: WireClient) -> None:
    ref = ensure(client, boot())["lease"]["lease_ref"]
    for known in (ref, ref, ref, "lease-never"):
        assert ask(client, "lease.release", lease_ref=known) == {"lease_ref": known}
    for op, fields in (("lease.renew", {"ttl_ms": 5000}), ("lease.get", {})):
        with pytest.raises(Refused) as refused:
            ask(client, op, lease_ref=ref, **fields)
        assert refused.value.code == "not_found"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_user_outside_the_group_cannot_even_connect(daemon: RunningDaemon) -> None:
    for directory in (daemon.directory, daemon.socket.parent):
        directory.chmod(0o711)

    def as_nobody() -> list[str]:
        told: list[str] = []
        for name in ("inferd.sock", "admin.sock"):
            try:
                with connected(daemon.socket.with_name(name)):
                    told.append("connected")
            except OSError as error:
                told.append(type(error).__name__)
        return told

    assert as_user(NOBODY, NOBODY, as_nobody) == ["PermissionError"] * 2
