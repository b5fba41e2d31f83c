"""Keys are read once, compared all, and named by none of the messages."""

from pathlib import Path

import pytest

from inferd_daemon.config import HttpClientConfig, HttpConfig
from inferd_daemon.errors import OperatorError
from inferd_daemon.fronts.http.keys import ClientKeys, unfit_keys

ONE, TWO, THREE = ("1" * 20, "2" * 20, "3" * 20)


def test_each_client_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{THREE}\n")
    config = HttpConfig(
        clients={
            "a": HttpClientConfig(key=ONE),
            "b": HttpClientConfig(key_env="B_KEY"),
            "c": HttpClientConfig(key_file=str(file)),
        }
    )
    keys = ClientKeys(config, {"B_KEY": TWO})
    assert len(keys) == 3
    for key, name in ((ONE, "a"), (TWO, "b"), (THREE, "c"), ("4" * 20, None), ("", None)):
        assert keys.owner([(b"authorization", f"Bearer {key}".encode())]) == name
        assert keys.owner([(b"x-api-key", key.encode())]) == name
    assert keys.owner([]) is None
    assert keys.owner([(b"authorization", f"Basic {ONE}".encode())]) is None
    # what names itself a bearer is meant, whatever else stands there
    both = [(b"x-api-key", ONE.encode()), (b"authorization", b"Bearer wrong")]
    assert keys.owner(both) is None


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by digests of one length: the time tells neither how many there are nor which it is."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    config = HttpConfig(clients={"a": HttpClientConfig(key=ONE), "b": HttpClientConfig(key=TWO)})
    keys = ClientKeys(config, {})
    monkeypatch.setattr("hmac.compare_digest", compare)
    for key in (ONE, TWO, "x", ""):
        compared.clear()
        keys.owner([(b"x-api-key", key.encode())])
        assert compared == [(32, 32)] * 2


def test_what_cannot_be_a_key_is_said_without_it(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("s3cret")
    config = HttpConfig(
        clients={
            "a": HttpClientConfig(key_file=str(tmp_path / "missing")),
            "b": HttpClientConfig(key_env="NOT_THERE"),
            "c": HttpClientConfig(key_file=str(short)),
            "d": HttpClientConfig(key_file=str(tmp_path)),
        }
    )
    told = dict(unfit_keys(config, {}))
    assert told == {
        ("clients", "a", "key_file"): "cannot be read: No such file or directory",
        ("clients", "b", "key_env"): "the daemon's environment has no such variable",
        ("clients", "c", "key_file"): "what it names is under 16 characters",
        ("clients", "d", "key_file"): "cannot be read: Is a directory",
    }
    with pytest.raises(OperatorError, match=r"http\.clients\.a\.key_file"):
        ClientKeys(config, {})
