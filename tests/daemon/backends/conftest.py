"""A machine at its limit of processes, which starts no thread either; a machine that stalls; a
certificate for TLS."""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from inferd_daemon.backends.transport import IdlePool
from tests.support.certificate import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For this machine under its usual names."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def long_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections outlast a stall of the machine: for who counts connections in real time."""
    pool = partial(IdlePool, keep_alive_s=600.0)
    monkeypatch.setattr("inferd_daemon.backends.transport.http.IdlePool", pool)


@pytest.fixture
def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, as the kernel refuses them; those that idle from earlier are gone too."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def begin() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        monkeypatch.setattr("trio._core._thread_cache.THREAD_CACHE._idle_workers", {})

    return begin


@pytest.fixture
def no_threads(
    monkeypatch: pytest.MonkeyPatch, refuse_threads: Callable[[], None]
) -> pytest.MonkeyPatch:
    """From the beginning of the test; undo it to have them again."""
    refuse_threads()
    return monkeypatch
