"""A daemon whose constants are others, so that no test has to be quicker than a slow machine."""

from pathlib import Path

SITE = """
import sys
from importlib.machinery import PathFinder

class Changes:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            vars(module).update({constants!r})

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Changes())
"""


def changed(directory: Path, module: str, **constants: float) -> dict[str, str]:
    """The environment of a daemon in whose `module` the `constants` have these values.

    It holds for its first self only: the code of the next ones comes from another finder.
    """
    (directory / "sitecustomize.py").write_text(SITE.format(module=module, constants=constants))
    return {"PYTHONPATH": str(directory)}
