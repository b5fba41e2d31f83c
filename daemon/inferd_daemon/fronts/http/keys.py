"""Whose key came with a request. Every key is compared, in constant time, whichever fits.

Holds digests: a key itself is forgotten as soon as it has been read.
"""

import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...config import HttpClientConfig, HttpConfig
from ...config.http_rules import unfit_key
from ...config.lines import Path as KeyPath
from ...errors import OperatorError
from .incoming import Headers

MAX_KEY_FILE_BYTES = 4096


class UnfitKey(Exception):
    """There is none, or it can be none; says so without it. `key` is that of the table."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key
        self.why = why


class ClientKeys:
    """The keys of all configured clients. Raises OperatorError where one cannot be had."""

    def __init__(self, config: HttpConfig, environ: Mapping[str, str]) -> None:
        self._digests: dict[str, bytes] = {}
        for name, client in config.clients.items():
            try:
                key = read_key(client, environ)
            except UnfitKey as error:
                path = f"http.clients.{name}.{error.key}"
                raise OperatorError(f"{path}: {error.why}") from None
            self._digests[name] = hashlib.sha256(key.encode()).digest()

    def __len__(self) -> int:
        return len(self._digests)

    def owner(self, headers: Headers) -> str | None:
        """The client whose key the headers bear, as `Authorization: Bearer` or `x-api-key`."""
        digest = hashlib.sha256(_presented(headers)).digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def unfit_keys(config: HttpConfig, environ: Mapping[str, str]) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with each, by the path below `[http]`."""
    for name, client in config.clients.items():
        try:
            read_key(client, environ)
        except UnfitKey as error:
            yield ("clients", name, error.key), error.why


def read_key(client: HttpClientConfig, environ: Mapping[str, str]) -> str:
    """From where the configuration says. Raises UnfitKey."""
    if client.key_file is not None:
        where, key = "key_file", _read(Path(client.key_file))
    elif client.key_env is not None:
        where, key = "key_env", environ.get(client.key_env, "").strip()
        if not key:
            raise UnfitKey(where, "the daemon's environment has no such variable")
    else:
        where, key = "key", client.key or ""
    why = unfit_key(key)
    if why is not None:
        raise UnfitKey(where, f"what it names {why}" if where != "key" else why)
    return key


def _read(path: Path) -> str:
    try:
        # not a pipe: to open one would wait for who writes it
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1) or b""
    except OSError as error:
        raise UnfitKey("key_file", f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_KEY_FILE_BYTES:
        raise UnfitKey("key_file", f"is over {MAX_KEY_FILE_BYTES} bytes")
    return data.decode("latin-1").strip()


def _presented(headers: Headers) -> bytes:
    key = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return token.strip()
        elif name == b"x-api-key":
            key = value
    return key
