"""What the keys of `[http]` must be in themselves and to each other, beyond their types.

Pure: looks at no file and no socket, and never repeats a value that may be secret.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping

from .http import MIN_KEY_CHARS
from .lines import Path

Table = Mapping[str, object]
Mistakes = Iterator[tuple[Path, str]]

_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost):([0-9]{1,5})")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_FORM = "must be an address and a port: 127.0.0.1:8417, or [::1]:8417"


def listen_address(text: str) -> tuple[str, int] | None:
    """The host without brackets and the port; None where it has not the form."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[2]) > 65_535:
        return None
    host = "127.0.0.1" if match[1] == "localhost" else match[1].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return host, int(match[2])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    return ipaddress.ip_address(host).is_loopback


def broken_http_rules(table: Table, *, allow_remote: bool) -> Mistakes:
    """Every rule that `[http]` breaks, by the path below it."""
    for name in ("unix", "unix_group", "tls_cert_file", "tls_key_file"):
        text = table.get(name)
        if isinstance(text, str) and (not text.strip() or "\0" in text):
            yield (name,), "is empty; leave it out instead"
    clients = table.get("clients")
    clients = clients if isinstance(clients, dict) else {}
    yield from _tls(table)
    yield from _listen(table, has_clients=bool(clients), allow_remote=allow_remote)
    for name, client in clients.items():
        if isinstance(client, dict):
            yield from _key(("clients", name), client)
    for index, host in _texts(table.get("host_names")):
        if not _HOST.fullmatch(host):
            yield ("host_names", index), "is no name of a host; give it without a port"
    for index, origin in _texts(table.get("origins")):
        if not _ORIGIN.fullmatch(origin):
            yield ("origins", index), "must be http://host or https://host, with a port if needed"


def _listen(table: Table, *, has_clients: bool, allow_remote: bool) -> Mistakes:
    listen = table.get("listen")
    if not isinstance(listen, str):
        return
    address = listen_address(listen)
    if address is None:
        yield ("listen",), _FORM
    elif not is_loopback(address[0]):
        if not allow_remote:
            yield ("listen",), "other machines would reach it: that needs allow_remote in [daemon]"
        if table.get("tls_cert_file") is None:
            yield ("listen",), "other machines would reach it: that needs tls_cert_file"
        if not has_clients:
            yield ("listen",), "other machines would reach it: that needs a [http.clients.<name>]"


def _tls(table: Table) -> Mistakes:
    for one, other in (("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")):
        if table.get(one) is not None and table.get(other) is None:
            yield (one,), f"needs {other}"
    if table.get("tls_cert_file") is not None and table.get("unix") and not table.get("listen"):
        yield ("tls_cert_file",), "is for `listen`; a Unix socket has no TLS"


def _key(path: Path, client: Table) -> Mistakes:
    given = [name for name in ("key", "key_env", "key_file") if client.get(name) is not None]
    if not given:
        yield path, "has no key; give key_file, key_env or key"
    for name in given[1:]:
        yield (*path, name), f"excludes {given[0]}; give one of them"
    for name in ("key_env", "key_file"):
        text = client.get(name)
        if isinstance(text, str) and (not text.strip() or "\0" in text):
            yield (*path, name), "is empty; leave it out instead"
    key = client.get("key")
    if isinstance(key, str) and (why := unfit_key(key)):
        yield (*path, "key"), why


def unfit_key(key: str) -> str | None:
    """Why it can be no client's key; None where it can."""
    if not key.isascii() or not key.isprintable() or " " in key:
        return "must be one line of ASCII without spaces"
    if len(key) < MIN_KEY_CHARS:
        return f"is under {MIN_KEY_CHARS} characters"
    return None


def _texts(value: object) -> list[tuple[int, str]]:
    found = value if isinstance(value, list) else []
    return [(index, text) for index, text in enumerate(found) if isinstance(text, str)]
