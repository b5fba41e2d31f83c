"""What the clients' tests share: a scripted daemon, and both event loops."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from tests.clients.scripted_daemon import ScriptedDaemon

Main = Callable[[], Awaitable[None]]

DEADLINE_S = 15.0


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
