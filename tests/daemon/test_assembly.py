"""What a configuration needs of the machine: all that is not there, each by its key."""

import os
from pathlib import Path

import pytest

from inferd_daemon.assembly import look_around
from inferd_daemon.config import parse_config


def unmet(text: str) -> list[tuple[str, bool]]:
    """What is said, and whether it stops the start."""
    return [
        (f"{'.'.join(map(str, path))}: {message}", stops)
        for path, message, stops in look_around(parse_config(text))
    ]


@pytest.mark.parametrize(
    ("text", "said", "stops"),
    [
        (
            '[daemon]\nsocket_group = "no such group"',
            "daemon.socket_group: there is no group 'no such group'",
            True,
        ),
        (
            '[daemon]\nadmin_group = "no such group"',
            "daemon.admin_group: there is no group 'no such group'",
            True,
        ),
        (
            '[backends.a]\nkind = "openai_compat"\napi_key_file = "TMP/none"',
            "backends.a.api_key_file: cannot be read: No such file or directory",
            True,
        ),
        (
            '[backends.a]\nkind = "openai_compat"\napi_key_file = "TMP/binary"',
            "backends.a.api_key_file: cannot be read: it is not text",
            True,
        ),
        (
            '[backends.a]\nkind = "openai_compat"\nbase_url = "https://x"\n'
            'tls_ca_file = "TMP/none"',
            "backends.a.tls_ca_file: cannot be used: [Errno 2] No such file or directory",
            True,
        ),
        (
            '[backends.a]\nkind = "libllama"\nmodel = "TMP/none"',
            "backends.a.model: 'TMP/none' cannot be read: No such file or directory",
            False,
        ),
        (
            '[backends.a]\nkind = "libllama"\nmodel = "demo"\nmmproj = "TMP"',
            "backends.a.mmproj: 'TMP' cannot be read: it is a directory",
            False,
        ),
        (
            '[backends.a]\nkind = "llama_server"\nmodel = "TMP/none"\nbinary_path = "/bin/sh"',
            "backends.a.model: 'TMP/none' cannot be read: No such file or directory",
            False,
        ),
        (
            '[backends.a]\nkind = "llama_server"\nmodel = "demo"\nbinary_path = "TMP/none"',
            "backends.a.binary_path: TMP/none does not exist",
            False,
        ),
        (
            '[backends.a]\nkind = "llama_server"\nmodel = "relative"',
            "backends.a.model: must be an absolute path; the daemon has another working directory",
            True,
        ),
        (
            '[backends.a]\nkind = "llama_server"\nmodel = "demo"\nextra_args = ["x", "--api-key"]',
            "backends.a.extra_args.1: --api-key contradicts the field `api_key`; set that",
            True,
        ),
        (
            '[backends.a]\nkind = "llama_server"\nmodel = "demo"\nenvironment = { LLAMA_X = "1" }',
            "backends.a.environment.LLAMA_X: contradicts the fields; use them, or `extra_args`",
            True,
        ),
    ],
)
def test_what_is_not_there(tmp_path: Path, text: str, said: str, stops: bool) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    here = str(tmp_path)
    assert unmet(text.replace("TMP", here)) == [(said.replace("TMP", here), stops)]


def test_everything_at_once(tmp_path: Path) -> None:
    found = unmet(f"""\
[daemon]
socket_group = "no such group"
[backends.a]
kind = "openai_compat"
api_key_file = "{tmp_path}/none"
[backends.b]
kind = "libllama"
model = "{tmp_path}/none"
mmproj = "{tmp_path}/none"
[backends.c]
kind = "mock"
""")
    assert [said.partition(": ")[0] for said, _ in found] == [
        "daemon.socket_group",
        "backends.a.api_key_file",
        "backends.b.model",
        "backends.b.mmproj",
    ]


def test_nothing_is_said_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k3y\n")
    assert not unmet(f"""\
[backends.a]
kind = "openai_compat"
api_key_file = "{tmp_path}/key"
[backends.b]
kind = "libllama"
model = "demo"
[backends.c]
kind = "llama_server"
model = "demo"
""")


def test_a_pipe_is_left_for_who_needs_what_is_in_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    assert not unmet(f'[backends.a]\nkind = "openai_compat"\napi_key_file = "{tmp_path}/key"')
