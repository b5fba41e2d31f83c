"""`[http]`: its rules by key and line, and that keys are not shown."""

import pytest

from inferd_daemon.config import ConfigError, parse_config, render_config
from inferd_daemon.config.http_rules import is_loopback, listen_address

KEY = "a-key-that-is-long-enough"


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_defaults_are_loopback_alone() -> None:
    http = parse_config("[http]").http
    assert http is not None
    assert (http.listen, http.unix, http.clients, http.origins) == (None, None, {}, [])
    assert parse_config("").http is None


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:8417", ("::1", 8417)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ("127.0.0.1", None),
        ("127.0.0.1:65536", None),
        ("::1:80", None),
        ("999.0.0.1:80", None),
        ("example.com:80", None),
        ("127.0.0.1:80\n", None),
    ],
)
def test_addresses(listen: str, address: tuple[str, int] | None) -> None:
    assert listen_address(listen) == address


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("127.9.9.9", "::1", "0.0.0.0", "::")] == [
        True,
        True,
        False,
        False,
    ]


def test_other_machines_need_leave_tls_and_keys() -> None:
    assert mistakes('[http]\nlisten = "0.0.0.0:8417"') == [
        "line 2: http.listen: other machines would reach it: that needs allow_remote in [daemon]",
        "line 2: http.listen: other machines would reach it: that needs tls_cert_file",
        "line 2: http.listen: other machines would reach it: that needs a [http.clients.<name>]",
    ]
    parse_config(
        "[daemon]\nallow_remote = true\n"
        '[http]\nlisten = "[::]:8417"\ntls_cert_file = "/c"\ntls_key_file = "/k"\n'
        f'[http.clients.a]\nkey = "{KEY}"'
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[http]\nlisten = "here"', "line 2: http.listen: must be an address and a port"),
        ('[http]\ntls_cert_file = "/c"', "line 2: http.tls_cert_file: needs tls_key_file"),
        ('[http]\nunix_mode = "rw"', "line 2: http.unix_mode: "),
        ('[http]\nunix = ""', "line 2: http.unix: is empty"),
        ('[http]\nlsten = "x"', "line 2: http.lsten: unknown key; did you mean `listen`?"),
        ('[http]\norigins = ["a.example"]', "line 2: http.origins[0]: must be http://host"),
        ('[http]\nhost_names = ["a:1"]', "line 2: http.host_names[0]: is no name of a host"),
        ("[http.clients.a]", "line 1: http.clients.a: has no key"),
        ('[http.clients.a]\nkey = "s3cret"', "line 2: http.clients.a.key: is under 16 characters"),
        (
            '[http.clients.a]\nkey = "s3cret s3cret s3cret"',
            "line 2: http.clients.a.key: must be one line of ASCII",
        ),
        (
            f'[http.clients.a]\nkey_file = "/k"\nkey = "{KEY}"',
            "line 2: http.clients.a.key_file: excludes key",
        ),
    ],
)
def test_rules_by_key_and_line(text: str, said: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.startswith(said)
    assert "s3cret" not in mistake


def test_keys_are_not_shown() -> None:
    shown = render_config(parse_config(f'[http.clients.a]\nkey = "{KEY}"'))
    assert KEY not in shown
    assert "<secret>" in shown
