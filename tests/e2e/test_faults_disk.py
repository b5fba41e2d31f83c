"""A state directory that is full or read-only: typed refusals, nothing lost, and no hand needed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import models
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import (
    ENDLESS_ROUTE,
    Refused,
    ask,
    boot,
    complete,
    completes_again,
    ensure,
    leases,
    leasing_daemon,
    runtimes,
    start_again,
)
from tests.support.llama_server import llama_server_path
from tests.support.plain_user import launch, plain_daemon, plain_directory, wait_listening
from tests.support.traces import wrong_traces
from tests.support.wire_client import WireClient, connected

DISK_BYTES = 1 << 20


@pytest.fixture
def server() -> Path:
    return llama_server_path()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount; a file size limit does the same in test_leases.py")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this root cannot mount; a file size limit does the same in test_leases.py")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.fixture
def daemon(server: Path, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[
    RunningDaemon
]:  # fmt: skip
    model = tmp_path_factory.mktemp("model") / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    config = f'[daemon]\nstate_dir = "{disk}"\n' + ENDLESS_ROUTE.format(
        model=model, idle_ttl="forever"
    )
    with leasing_daemon(config, server=server) as running:
        yield running


def fill(disk: Path) -> Path:
    """Take all that is left of it; the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
    return ballast


def renew_until_refused(client: WireClient, ref: str) -> str:
    """The code of the refusal."""
    for _ in range(200):
        try:
            ask(client, "lease.renew", lease_ref=ref, ttl_ms=3_600_000)
        except Refused as error:
            return error.code
    raise AssertionError("the disk never got full")


def release_until_refused(client: WireClient, refs: list[str]) -> str:
    """The code of the refusal."""
    for ref in refs:
        try:
            ask(client, "lease.release", lease_ref=ref)
        except Refused as error:
            return error.code
    raise AssertionError("the disk never got full")


def test_a_full_disk_refuses_what_must_be_durable_and_no_more(
    daemon: RunningDaemon, disk: Path
) -> None:
    with connected(daemon.socket) as client, connected(daemon.socket) as other:
        kept = ensure(client, boot(), ttl_ms=3_600_000)
        ref = kept["lease"]["lease_ref"]
        ensure(client, "endless")
        spare = [ensure(client, boot(), ttl_ms=3_600_000)["lease"]["lease_ref"] for _ in range(20)]
        ballast = fill(disk)
        # The last page of the journal has room for a few entries more, and then for short ones.
        assert renew_until_refused(client, ref) == "backend_unavailable"
        assert release_until_refused(client, spare) == "backend_unavailable"
        before = leases(client)
        for op, fields in (
            ("lease.ensure", {"target": boot()}),
            ("lease.ensure", {"target": boot(ctx_size=1024)}),
            ("lease.release", {"lease_ref": ref}),
        ):
            with pytest.raises(Refused) as refused:
                ask(other, op, **fields)
            assert refused.value.code == "backend_unavailable"
        assert leases(client) == before
        assert complete(kept["endpoint"]).status == 200
        other.generate("g", model="endless", max_tokens=3)
        assert other.hear_end("g")["stop_reason"] == "max_tokens"

        ballast.unlink()
        ask(client, "lease.release", lease_ref=ref)
        assert complete(ensure(client, boot(ctx_size=1024))["endpoint"]).status == 200


def test_kill_9_on_a_full_disk_loses_no_lease(
    daemon: RunningDaemon, disk: Path, server: Path
) -> None:
    with connected(daemon.socket) as client:
        kept = ensure(client, boot(), ttl_ms=3_600_000, bind="none")
        ballast = fill(disk)
        daemon.process.kill()
        daemon.process.wait()
    start_again(daemon, server)
    with connected(daemon.socket) as client:
        assert leases(client) == [kept["lease"]["lease_ref"]]
        completes_again(kept["endpoint"])
        with pytest.raises(Refused, match="make room"):
            ensure(client, boot(ctx_size=1024))
        ballast.unlink()
        completes_again(kept["endpoint"])
        wait_until(lambda: not wrong_traces(daemon, runtimes(client)), 2, "order")
    daemon.stop()


def test_a_read_only_journal_refuses_until_it_can_be_written(server: Path) -> None:
    with plain_directory() as directory:
        state = directory / "run" / "state"
        with plain_daemon(directory, server) as daemon, connected(daemon.socket) as client:
            kept = ensure(client, boot(), bind="none")
            daemon.process.kill()
            daemon.process.wait()
            (state / "journal").chmod(0o400)
            state.chmod(0o500)
            daemon.process = launch(directory, server)
            wait_listening(daemon)
            with connected(daemon.socket) as again:
                assert leases(again) == [kept["lease"]["lease_ref"]]
                with pytest.raises(Refused, match="Permission denied") as refused:
                    ensure(again, boot())
                assert refused.value.code == "backend_unavailable"
                assert leases(again) == [kept["lease"]["lease_ref"]]
                completes_again(kept["endpoint"])
                state.chmod(0o700)
                assert complete(ensure(again, boot(ctx_size=1024))["endpoint"]).status == 200
