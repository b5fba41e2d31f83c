"""Pages and names that have no business on loopback are told from those that have."""

import pytest

from inferd_daemon.fronts.http.origin import (
    ALLOWED_HEADERS,
    OriginRules,
    Refusal,
    preflight_headers,
)

RULES = OriginRules(["box.lan"], ["https://app.example"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost", None),
        (b"LOCALHOST:8417", None),
        (b"localhost.", None),
        (b"127.0.0.1:1", None),
        (b"[::1]:1", None),
        (b"[::1]", None),
        (b"192.0.2.7", None),  # an address is nobody's name
        (b"box.lan:8417", None),
        (b"evil.example", 403),
        (b"localhost.evil.example", 403),
        (b"evil.example:127.0.0.1", 403),
        (b"[evil.example]", 403),
        (b"127.0.0.1.", None),  # to browsers the same address
        (b"", 403),
        (b"\xff", 403),
    ],
)
def test_hosts(host: bytes, status: int | None) -> None:
    found = RULES.judge([(b"host", host)])
    assert (found.status if isinstance(found, Refusal) else None) == status
    assert RULES.judge([(b"host", host)], any_host=True) is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([(b"origin", b"https://app.example")], False),
        ([(b"origin", b"https://APP.example"), (b"sec-fetch-site", b"cross-site")], False),
        ([(b"origin", b"http://app.example")], True),
        ([(b"origin", b"https://app.example.evil")], True),
        ([(b"origin", b"null")], True),
        ([(b"origin", b"http://localhost:3000")], True),
        ([(b"origin", b"https://app.example"), (b"origin", b"https://evil.example")], True),
        ([(b"sec-fetch-site", b"cross-site")], True),
        ([(b"sec-fetch-site", b"same-site")], True),
        ([(b"sec-fetch-site", b"none")], False),
    ],
)
def test_origins(headers: list[tuple[bytes, bytes]], refused: bool) -> None:
    for order in (headers, headers[::-1]):
        found = RULES.judge([(b"host", b"localhost"), *order])
        assert isinstance(found, Refusal) is refused
        shown = [value for name, value in order if name == b"origin"]
        assert refused or found == (shown[0] if shown else None)


def test_one_host_is_needed() -> None:
    for hosts in ([], [(b"host", b"localhost")] * 2):
        refusal = RULES.judge(hosts)
        assert isinstance(refusal, Refusal)
        assert refusal.status == 400


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (
            b"authorization,content-type,x-stainless-os",
            b"authorization,content-type,x-stainless-os",
        ),
        (b"X-Stainless-Arch, x-b3", b"x-stainless-arch, x-b3"),
        (b"x" * 2048, b"x" * 2048),
        (b"x" * 2049, ALLOWED_HEADERS),
        (b"x\ty", ALLOWED_HEADERS),
        (b"x: y", ALLOWED_HEADERS),
        (b"*", ALLOWED_HEADERS),
        (b"", ALLOWED_HEADERS),
        (None, ALLOWED_HEADERS),
    ],
)
def test_a_preflight_allows_what_clients_send(asked: bytes | None, allowed: bytes) -> None:
    asking = [(b"host", b"localhost")]
    if asked is not None:
        asking.append((b"access-control-request-headers", asked))
    assert dict(preflight_headers(asking))[b"access-control-allow-headers"] == allowed
