"""What the clients' tests share: a scripted daemon, and both event loops."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from inferd_client import async_link, blocking_lease, blocking_link, held_lease, renewal
from tests.clients.scripted_daemon import ScriptedDaemon

Main = Callable[[], Awaitable[None]]

DEADLINE_S = 60.0
LAST_WORD_S = 30.0
"""Both end what hangs, and nothing else: a busy machine may stand still for seconds."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    """Listens; answers in a friendly way unless the test sets `script`."""
    with ScriptedDaemon(tmp_path / "inferd.sock") as daemon:
        yield daemon


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Runs an async function on trio, then on asyncio; a test that hangs fails."""

    def run_on(main: Main) -> None:
        async def bounded() -> None:
            with anyio.fail_after(DEADLINE_S):
                await main()

        anyio.run(bounded, backend=request.param)

    return run_on


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves a request or a lease waits for the daemon's last word, however late it is."""
    for module in (async_link, blocking_link):
        monkeypatch.setattr(module, "END_TIMEOUT_S", LAST_WORD_S)
    for module in (held_lease, blocking_lease):
        monkeypatch.setattr(module, "RELEASE_TIMEOUT_S", LAST_WORD_S)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed every 200th part of their time: soon, and long before they expire."""
    monkeypatch.setattr(renewal, "RENEWALS_PER_TTL", 200)
