"""The state directory belongs to one daemon."""

import os
import stat
from pathlib import Path

import pytest

from inferd_daemon.errors import OperatorError
from inferd_daemon.supervision.succession.state_directory import StateDirectory


def test_it_is_made_private_and_held_until_its_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    with StateDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        with pytest.raises(OperatorError, match=f"pid {os.getpid()}"), StateDirectory(path):
            pass
    with StateDirectory(path):
        pass


def test_what_cannot_be_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OperatorError, match="state_dir"), StateDirectory(file):
        pass
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OperatorError, match="state_dir"), StateDirectory(directory):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_anothers_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    with pytest.raises(OperatorError, match="belongs to uid 65534"), StateDirectory(tmp_path):
        pass
