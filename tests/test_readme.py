"""The README's map against the tree: a room that is missing on either side fails."""

import re
from pathlib import Path

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
