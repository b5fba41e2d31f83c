"""Whether a browser sends a request on behalf of a page that has no business here. Pure.

A page of another site can have a browser send requests to loopback; that it came from there shows
in its Origin. A name that an attacker lets point to loopback shows in its Host.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple

from .incoming import Headers

ALLOWED_HEADERS = b"authorization, content-type, x-api-key, anthropic-version, anthropic-beta"
"""For a browser that names none that can be allowed."""
PREFLIGHT_AGE_S = 600
_NAMES = re.compile(rb"[a-z0-9-, ]{1,2048}")
_ASKED = b"access-control-request-headers"
_FOREIGN = (b"cross-site", b"same-site")
"""`same-site` is another port of the same host, which is another program."""


class Refusal(NamedTuple):
    """Status, what is wrong, and a word for it."""

    status: int
    message: str
    code: str


class OriginRules:
    """`host_names` are names that the front goes by, besides `localhost` and every IP address: no
    DNS can turn those into another's. `origins` are pages that may ask.
    """

    def __init__(self, host_names: Collection[str], origins: Collection[str]) -> None:
        self._names = {"localhost", "127.0.0.1", "[::1]", *(name.lower() for name in host_names)}
        self._origins = {origin.lower().encode() for origin in origins}

    def judge(self, headers: Headers, *, any_host: bool = False) -> Refusal | bytes | None:
        """Why the request is refused; else the Origin that may see the answer, if it has one.

        `any_host` where no browser can come from.
        """
        hosts: list[bytes] = []
        allowed: bytes | None = None
        foreign = False
        for name, value in headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                if value.lower() not in self._origins:
                    return _FOREIGN_PAGE
                allowed = value
            elif name == b"sec-fetch-site":
                foreign = value in _FOREIGN
        if not any_host:
            if len(hosts) != 1:
                return Refusal(400, "a request needs one Host header", "invalid_host")
            if not self._is_ours(hosts[0]):
                return Refusal(403, _HOST, "invalid_host")
        return _FOREIGN_PAGE if foreign and allowed is None else allowed

    def _is_ours(self, host: bytes) -> bool:
        name = _without_port(host.decode("latin-1").lower())
        if name in self._names or name.removesuffix(".") in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def answer_headers(origin: bytes) -> Headers:
    """What lets a page of `origin` read an answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"origin"),
    ]


def preflight_headers(asking: Headers) -> Headers:
    """What else an answer needs for a browser that asks, with `asking`, whether it may ask.

    The headers that it wants to send are allowed: vendors' SDKs have a dozen of their own.
    """
    wanted = next((value.lower() for name, value in asking if name == _ASKED), b"")
    return [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", wanted if _NAMES.fullmatch(wanted) else ALLOWED_HEADERS),
        (b"access-control-max-age", b"%d" % PREFLIGHT_AGE_S),
    ]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


_HOST = (
    "the Host header names a host that is not this one; ask by IP address or localhost, or list "
    "the name in `host_names` of [http]"
)
_FOREIGN_PAGE = Refusal(
    403,
    "web pages may not ask here; `origins` of [http] lists those that may",
    "origin_refused",
)
