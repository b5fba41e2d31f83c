"""What a host may be: whatever passes can be looked up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.config.host_names import is_host


@pytest.mark.parametrize(
    "host",
    ["localhost", "gpu.lan", "gpu.lan.", "a_b", "a-b", "1.2.3.4", "::1", "fe80::1", "a" * 63],
)
def test_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        ".x",
        "x..y",
        "-x",
        "xn--zzzzzzz--",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "\u00fc.x",
        "a b",
        "a%b",
        "::1%eth0",
        "::1%a..b",
        "::g",
        "1:2",
        "x/y",
        "x\n",
    ],
)
def test_what_is_none(host: str) -> None:
    assert not is_host(host)


@given(st.text(st.sampled_from("ab.-_:%1\u00fc"), max_size=70))
def test_what_passes_can_be_encoded_for_a_look_up(host: str) -> None:
    if is_host(host):
        assert host.encode("idna")
