"""The README against what is: its map shows the tree, its examples work as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from inferd_client.connecting import SERVICE_SOCKET
from inferd_daemon.config import parse_config
from inferd_daemon.config.http import DEFAULT_LISTEN
from tests.support.daemon import running_daemon
from tests.support.http_models import http_models

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def mapped_rooms() -> set[str]:
    """Folders on the map, as paths from the root."""
    block = README.split("holds it against the\ntree):\n\n")[1].split("\n\n")[0]
    rooms: set[str] = set()
    stack: list[tuple[int, str]] = []
    for line in block.splitlines():
        match = re.match(r"^( +)(\S+/) +\S", line)
        assert match, line
        indent, name = len(match[1]), match[2]
        while stack and stack[-1][0] >= indent:
            stack.pop()
        path = (stack[-1][1] if stack else "") + name
        stack.append((indent, path))
        rooms.add(path.rstrip("/"))
    return rooms


def real_rooms() -> set[str]:
    """Folders that hold a package."""
    packages = ("proto", "daemon", "clients")
    return {
        str(init.parent.relative_to(ROOT))
        for package in packages
        for init in (ROOT / package).rglob("__init__.py")
    }


def test_the_map_shows_every_room_and_no_other() -> None:
    assert mapped_rooms() == real_rooms()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def example(language: str, holding: str = "") -> str:
    """The one block of that language that holds a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (block,) = (block for block in blocks if holding in block)
    return str(block)


def run(command: list[str], **environ: str) -> str:
    """What it prints."""
    done = subprocess.run(
        command,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_example_prints_an_answer() -> None:
    script = example("python", "inferd_client")
    with running_daemon("--demo") as daemon:
        said = run([sys.executable, "-c", script], INFERD_SOCKET=str(daemon.socket))
    assert said.startswith("Hello! I am inferd's built-in demo model")


def test_the_examples_over_http_print_an_answer() -> None:
    script = example("python", "openai")
    (curl,) = re.findall(r"^    curl http.*?}'$", README, re.DOTALL | re.MULTILINE)
    with http_models() as models:
        here, there = DEFAULT_LISTEN, models.root_url.removeprefix("http://")
        assert here in script
        key = f"-H 'Authorization: Bearer {models.key}'"
        streamed = run(["sh", "-c", f"{curl.replace(here, there)} {key}"])
        script = script.replace(here, there).replace("any, or the client's own", models.key)
        said = run([sys.executable, "-c", script])
    assert said.startswith("Hello! I am inferd's built-in demo model")
    assert streamed.endswith("data: [DONE]\n\n")


def test_the_steps_to_a_service_are_those_of_the_units() -> None:
    section = README.split("\n## As a service\n")[1].split("\n## ")[0]
    units = ROOT / "systemd"
    assert {path.name for path in units.iterdir()} <= set(re.findall(r"inferd\.\w+", section))
    service, socket = ((units / f"inferd.{kind}").read_text() for kind in ("service", "socket"))
    assert "ExecStart=/usr/bin/inferd\n" in service
    assert "/bin/inferd /opt/inferd/bin/inferdctl /usr/bin/" in section
    (path,) = re.findall(r"INFERD_SOCKET=(\S+?)`", section)
    assert path == SERVICE_SOCKET
    assert f"ListenStream={path}\n" in socket
    (config,) = re.findall(r"(/etc/inferd/\S+)$", section, re.MULTILINE)
    assert f"INFERD_CONFIG={config}\n" in service
    assert "#IPAddressDeny=" in service


def test_the_configuration_example_is_valid() -> None:
    config = parse_config(example("toml"))
    assert config.default_route == "chat"
