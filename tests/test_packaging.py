"""What ships needs nothing but what it declares: the daemon imports all of itself at an upgrade."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = [
    ROOT / path for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
]
KNOWN = {*sys.stdlib_module_names, *(path.name for path in SHIPPED)}
EXTRAS = [each for some in PROJECT["project"]["optional-dependencies"].values() for each in some]
DISTRIBUTIONS = packages_distributions()


def named(requirements: list[str]) -> set[str]:
    """The distributions of requirements, without versions."""
    return {re.split(r"[\[<>=!~; ]", each)[0] for each in requirements}


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level packages that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def undeclared(paths: list[Path], declared: set[str], *, whole: bool) -> set[str]:
    """What files import that nobody declares: in all of a file, or only as it is loaded."""
    missing: set[str] = set()
    for path in paths:
        tree: ast.AST = ast.parse(path.read_text())
        for name in imported(tree if whole else _at_load(tree)):
            owners = {each.lower().replace("_", "-") for each in DISTRIBUTIONS.get(name, [name])}
            if name not in KNOWN and not owners & declared:
                missing.add(f"{path.relative_to(ROOT)} imports {name}")
    return missing


def _at_load(tree: ast.AST) -> ast.AST:
    """`tree` without the bodies of functions, and without what only type checkers read."""

    class Loaded(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            """Gone."""

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            """Gone."""

        def visit_If(self, node: ast.If) -> ast.AST | None:
            """Gone where it is for type checkers."""
            kept = self.generic_visit(node)
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else kept

    return Loaded().visit(tree)  # type: ignore[no-any-return]


def test_what_ships_imports_only_what_it_declares() -> None:
    needed = named(PROJECT["project"]["dependencies"])
    paths = [path for package in SHIPPED for path in package.rglob("*.py")]
    assert len(paths) > 100
    assert not undeclared(paths, needed, whole=False)
    assert not undeclared(paths, needed | named(EXTRAS), whole=True)


def test_tests_import_only_what_they_declare() -> None:
    groups = PROJECT["dependency-groups"]["dev"]
    declared = named([*PROJECT["project"]["dependencies"], *EXTRAS, *groups]) | {"tests"}
    assert not undeclared(list((ROOT / "tests").rglob("*.py")), declared, whole=True)


def test_nothing_but_units_is_installed_as_one() -> None:
    kinds = {path.suffix for path in (ROOT / "systemd").iterdir()}
    assert kinds == {".service", ".socket", ".sysusers"}
