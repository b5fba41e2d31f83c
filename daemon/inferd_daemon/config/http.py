"""`[http]`: the HTTP front, where it listens, who may ask, and what a request may cost."""

from typing import Annotated

from msgspec import Meta, Struct

DEFAULT_LISTEN = "127.0.0.1:8417"
MIN_KEY_CHARS = 16
"""A key that a person thinks up is found by guessing; so many random ones are not."""
ClientName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]


class HttpClientConfig(Struct, frozen=True, kw_only=True):
    """`[http.clients.<name>]`: a program that may ask, by its key.

    The key stands in one of: a file (`key_file`), an environment variable of the daemon
    (`key_env`), or here (`key`), where more eyes read it. `<name>` is also its label in
    `[clients.<label>]`.
    """

    key: str | None = None
    key_env: str | None = None
    key_file: str | None = None


class HttpConfig(Struct, frozen=True, kw_only=True):
    """`[http]`; without the table nothing listens for HTTP.

    `listen` is an address and a port, `unix` the path of a Unix socket; both may be given, and
    without either it is `DEFAULT_LISTEN`. `unix_mode` are the socket's permissions in octal, and
    `unix_group` its group. An address that other machines reach needs `[daemon] allow_remote`,
    `tls_cert_file` and `tls_key_file`, and at least one client.

    Without `[http.clients.<name>]` everyone who reaches the front may ask. With them, a request
    needs the key of one of them; `metrics_open` leaves `/metrics` readable without.

    `host_names` are what the front may be called besides its own address and `localhost`;
    `origins` the web pages that may ask (none by default). A body is at most `max_body_bytes`, a
    request's head `max_head_bytes`. A connection on which nothing moves for `idle_timeout_s` is
    closed; a request and its answer take `total_timeout_s` at most.
    """

    listen: Annotated[str, Meta(max_length=256)] | None = None
    unix: Annotated[str, Meta(max_length=4096)] | None = None
    unix_mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}\Z")] = "0660"
    unix_group: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    clients: dict[ClientName, HttpClientConfig] = {}
    metrics_open: bool = False
    host_names: list[Annotated[str, Meta(min_length=1, max_length=255)]] = []
    origins: list[Annotated[str, Meta(min_length=1, max_length=255)]] = []
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 512
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1024**3)] = 64 * 1024**2
    max_head_bytes: Annotated[int, Meta(ge=1024, le=1024**2)] = 32 * 1024
    idle_timeout_s: PositiveSeconds = 60.0
    total_timeout_s: PositiveSeconds = 3600.0
