"""What `[http]` needs of the machine is looked for before anything starts."""

import ssl
import subprocess
from pathlib import Path

import pytest

from inferd_daemon.config import HttpClientConfig, HttpConfig
from inferd_daemon.fronts.http.needs import unmet_needs
from inferd_daemon.fronts.http.tls import server_context


def make_pair(directory: Path, name: str, *protection: str) -> tuple[str, str]:
    """A self-signed certificate and its key."""
    cert, key = str(directory / f"{name}.crt"), str(directory / f"{name}.key")
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "1", "-subj", "/CN=x")
    command = [*new, *protection, "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def config(cert: str, key: str) -> HttpConfig:
    return HttpConfig(tls_cert_file=cert, tls_key_file=key)


def test_a_pair_that_fits_is_taken(tmp_path: Path) -> None:
    good = config(*make_pair(tmp_path, "good", "-nodes"))
    assert list(unmet_needs(good, {})) == []
    context = server_context(good)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert server_context(HttpConfig()) is None


def test_what_does_not_fit_is_said_by_key(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path, "a", "-nodes")
    _, other = make_pair(tmp_path, "b", "-nodes")
    locked = make_pair(tmp_path, "c", "-passout", "pass:s3cret")
    for wrong, at, said in (
        (config(cert, other), "tls_cert_file", "KEY_VALUES_MISMATCH"),
        (config(key, key), "tls_cert_file", "PEM files of a certificate and its key"),
        (config("/no/such", key), "tls_cert_file", "cannot be read: No such file"),
        (config(*locked), "tls_key_file", "the key has a password"),
    ):
        ((path, why),) = unmet_needs(wrong, {})
        assert path == (at,)
        assert said in why


@pytest.mark.parametrize("group", ["no-such-group-anywhere"])
def test_everything_at_once(group: str) -> None:
    missing = HttpConfig(
        unix="/x", unix_group=group, clients={"a": HttpClientConfig(key_env="NOT_THERE")}
    )
    assert [path for path, _ in unmet_needs(missing, {})] == [
        ("clients", "a", "key_env"),
        ("unix_group",),
    ]
