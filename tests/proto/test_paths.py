"""The rule that finds the socket: every step of it, in order."""

from pathlib import Path

import pytest

from inferd_proto import runtime_directory, socket_path

EVERYTHING = {
    "INFERD_RUNTIME_DIR": "/own",
    "RUNTIME_DIRECTORY": "/run/inferd:/run/other",
    "XDG_RUNTIME_DIR": "/run/user/7",
    "HOME": "/home/ada",
}
ORDER = [
    ("INFERD_RUNTIME_DIR", "/own"),
    ("RUNTIME_DIRECTORY", "/run/inferd"),
    ("XDG_RUNTIME_DIR", "/run/user/7/inferd"),
    ("HOME", "/home/ada/.inferd/run"),
    (None, "/tmp/inferd-7"),
]


@pytest.mark.parametrize("blank", [None, ""])
def test_each_variable_wins_over_those_below_it(blank: str | None) -> None:
    environ = dict(EVERYTHING)
    for name, expected in ORDER:
        assert runtime_directory(environ, 7) == Path(expected)
        if name is None:
            continue
        if blank is None:
            del environ[name]
        else:
            environ[name] = blank


@pytest.mark.parametrize("name", ["XDG_RUNTIME_DIR", "HOME"])
def test_a_relative_base_counts_as_missing(name: str) -> None:
    assert runtime_directory({name: "somewhere"}, 7) == Path("/tmp/inferd-7")


@pytest.mark.parametrize("given", ["/a/b.sock", "unix:///a/b.sock"])
def test_the_full_path_wins(given: str) -> None:
    assert socket_path(EVERYTHING | {"INFERD_SOCKET": given}, 7) == Path("/a/b.sock")


def test_the_socket_is_in_the_directory() -> None:
    assert socket_path(EVERYTHING | {"INFERD_SOCKET": ""}, 7) == Path("/own/inferd.sock")
