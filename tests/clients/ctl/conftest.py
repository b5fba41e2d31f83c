"""A command line in this process, against the scripted daemon."""

import pytest

from inferd_client.ctl import main
from tests.clients.ctl.running import Ctl, Ended
from tests.clients.scripted_daemon import ScriptedDaemon


@pytest.fixture
def ctl(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Ctl:
    """Runs a command line in this process against the scripted daemon."""
    monkeypatch.setenv("INFERD_SOCKET", str(daemon.path))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*argv: str) -> Ended:
        code = main.run(list(argv))
        return Ended(code, *capsys.readouterr())

    return run
