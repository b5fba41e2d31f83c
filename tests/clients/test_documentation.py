"""The examples in the client's documentation run, and importing it is as cheap as it says."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import inferd_client
from tests.clients.scripted_daemon import ScriptedDaemon

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(inferd_client.__path__, "inferd_client.")
    if ".ctl" not in name
] + ["inferd_client"]


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_examples_say_what_happens(
    example: doctest.DocTest, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERD_SOCKET", str(daemon.path))
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(example, out=report.append)
    assert not report, "".join(report)


def test_there_are_examples() -> None:
    assert len(_examples()) >= 5


def test_every_public_name_is_there_and_documented() -> None:
    for name in inferd_client.__all__:
        value = getattr(inferd_client, name)
        assert value is not None
        if isinstance(value, type) and value.__module__.startswith("inferd_client"):
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = inferd_client.Nonsense


IMPORTS = {
    "inferd_client": ("inferd_daemon", "inferd_proto", "anyio", "trio", "rich", "click"),
    "inferd_client.blocking": ("inferd_daemon", "anyio", "trio", "asyncio", "rich", "click"),
    "inferd_client.client": ("inferd_daemon", "trio", "rich", "click"),
    "inferd_client.ctl.main": ("inferd_daemon", "anyio", "trio", "asyncio", "rich"),
}


@pytest.mark.parametrize("module", IMPORTS)
def test_importing_brings_nothing_that_is_not_needed(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(ran.stdout.split())
    assert not loaded & set(IMPORTS[module])
