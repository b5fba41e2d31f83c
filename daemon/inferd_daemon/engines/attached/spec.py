"""The spec of an attached service that someone else runs, normalised once (leases.md section 4).

Pure: asks nobody. Keys and headers stay inside: the instance key holds a fingerprint of them.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec
from msgspec import Meta, Struct

from inferd_proto import JsonObject

from ...config.checking import check, dotted
from ...config.host_names import is_host
from ...errors import CallerFault
from ..llama_server.boot_rules import is_loopback
from ..secret import Secret

AttachKind = Literal["ollama", "openai"]
Short = Annotated[str, Meta(max_length=256)]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]

DEFAULT_PORTS = {"http": 80, "https": 443}

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What a request line or the connection itself owns.
_OWN_HEADERS = {"host", "content-length", "content-type", "transfer-encoding", "connection"}
_KEY = re.compile(r"[!-~]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCES = ("api_key_file", "api_key_env")
_KEYS = ("api_key", *_REFERENCES)


class _Fields(Struct, kw_only=True):
    """The fields as they may be given; types and ranges only."""

    root_url: Annotated[str, Meta(max_length=2048)]
    model_identity: Short | None = None
    api_key: Annotated[str, Meta(max_length=4096)] | None = None
    api_key_file: Annotated[str, Meta(max_length=4096)] | None = None
    api_key_env: Short | None = None
    headers: Annotated[dict[str, Annotated[str, Meta(max_length=4096)]], Meta(max_length=64)] = {}
    kind: AttachKind = "openai"
    ready_timeout_ms: Milliseconds = 10_000
    health_interval_ms: Milliseconds = 5_000
    metadata: JsonObject = {}


class AttachSpec(Struct, frozen=True, kw_only=True):
    """A right attach spec. Make it with `normalise_attach`.

    `root_url` has no trailing slash, no `/v1`, no credentials. `headers` have lower-case names
    and never `authorization` beside a key; their values may be secret. The key itself, or where it
    is to be read when the service is attached: a file, or a variable of the daemon's environment.
    `model_identity` is always there for `ollama`; for `openai` None means the first model that the
    service lists.
    """

    root_url: str
    kind: AttachKind
    model_identity: str | None = None
    api_key: Secret | None = None
    api_key_file: str | None = None
    api_key_env: str | None = None
    headers: dict[str, Secret] = {}
    ready_timeout_ms: int = 10_000
    health_interval_ms: int = 5_000
    metadata: JsonObject = {}

    @property
    def base_url(self) -> str:
        """Requests go to `base_url + "/chat/completions"`."""
        return f"{self.root_url}/v1"

    @property
    def is_local(self) -> bool:
        """Whether the service is on this machine."""
        return is_loopback(urlsplit(self.root_url).hostname or "")

    def request_headers(self, key: Secret | None = None) -> dict[str, str]:
        """What a request must bear, secrets revealed; `key` is the one that was referred to."""
        shown = {name: value.reveal() for name, value in self.headers.items()}
        key = self.api_key or key
        if key is not None:
            shown["authorization"] = f"Bearer {key.reveal()}"
        return shown

    def privileged(self) -> list[str]:
        """The given fields by which its author has the daemon's user read their choice."""
        return [name for name in _REFERENCES if getattr(self, name) is not None]

    def instance_key(self) -> str:
        """What makes two specs mean the same service: where, which model, with whose rights."""
        rights = msgspec.json.encode(sorted(self.request_headers().items()))
        parts = [
            self.kind,
            self.root_url,
            self.model_identity or "",
            hashlib.sha256(rights).hexdigest(),
        ]
        # Not what it holds: a key that is changed in its place is the same right.
        parts += [f"{name}={getattr(self, name)}" for name in self.privileged()]
        digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
        return f"{self.kind}-{digest}"

    def to_json(self) -> JsonObject:
        """What `normalise_attach` makes this spec from again. Holds secrets: for the journal."""
        out: JsonObject = {
            "root_url": self.root_url,
            "kind": self.kind,
            "ready_timeout_ms": self.ready_timeout_ms,
            "health_interval_ms": self.health_interval_ms,
            "headers": {name: value.reveal() for name, value in self.headers.items()},
            "metadata": self.metadata,
        }
        if self.model_identity is not None:
            out["model_identity"] = self.model_identity
        if self.api_key is not None:
            out["api_key"] = self.api_key.reveal()
        return out | {name: getattr(self, name) for name in self.privileged()}


class AttachSpecError(CallerFault):
    """A spec that is wrong. `mistakes` are all of them, each naming its field."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        self.mistakes = mistakes
        told = "; ".join(f"`{name}` {text}" for name, text in mistakes)
        super().__init__(f"the attach spec is wrong: {told}")
        self.details = {"mistakes": [{"field": name, "message": text} for name, text in mistakes]}


def normalise_attach(raw: Mapping[str, object], *, allow_remote: bool = False) -> AttachSpec:
    """The spec that `raw` means.

    Raises AttachSpecError with every mistake. `allow_remote` admits services on other machines:
    a key would travel to them.
    """
    data = {name: value for name, value in raw.items() if value is not None}
    data = {name: value for name, value in data.items() if value != "" or name not in _KEYS}
    fields, wrong = check(data, _Fields)
    mistakes = [(dotted(path), text) for path, text in wrong]
    if fields is None:
        # What follows needs the fields as a whole; a URL is still worth a look.
        if isinstance(data.get("root_url"), str):
            mistakes += _url_mistakes(str(data["root_url"]), allow_remote)
        raise AttachSpecError(mistakes)
    mistakes += _url_mistakes(fields.root_url, allow_remote)
    mistakes += _field_mistakes(fields)
    if mistakes:
        raise AttachSpecError(mistakes)
    return AttachSpec(
        root_url=_normal_url(urlsplit(fields.root_url.strip())),
        kind=fields.kind,
        model_identity=fields.model_identity,
        api_key=None if fields.api_key is None else Secret(fields.api_key),
        api_key_file=fields.api_key_file,
        api_key_env=fields.api_key_env,
        headers={name.lower(): Secret(value) for name, value in sorted(fields.headers.items())},
        ready_timeout_ms=fields.ready_timeout_ms,
        health_interval_ms=fields.health_interval_ms,
        metadata=fields.metadata,
    )


def _url_mistakes(text: str, allow_remote: bool) -> list[tuple[str, str]]:
    def wrong(why: str) -> list[tuple[str, str]]:
        return [("root_url", why)]

    if not text.isprintable() or " " in text.strip():
        return wrong("holds a space or a control character")
    try:
        url = urlsplit(text.strip())
        host, port = url.hostname, url.port
    except ValueError:
        return wrong("is not a URL")
    if url.scheme not in DEFAULT_PORTS or not host:
        return wrong("must be an http or https URL with a host, such as http://127.0.0.1:11434")
    if not is_host(host):
        return wrong(f"{host!r} is no host: neither an address nor a name in ASCII")
    if url.username is not None or url.password is not None:
        return wrong("must not hold credentials; use `api_key` or `headers`")
    if url.query or url.fragment:
        return wrong("must not hold a query or a fragment")
    if port == 0:
        return wrong("must not name port 0")
    if not is_loopback(host) and not allow_remote:
        return wrong(f"{host!r} is not on this machine, and `allow_remote` is not set")
    return []


def _field_mistakes(fields: _Fields) -> list[tuple[str, str]]:
    mistakes: list[tuple[str, str]] = []
    identity = fields.model_identity
    if identity is not None and (not identity.strip() or not identity.isprintable()):
        mistakes.append(("model_identity", "is empty or holds a control character"))
    if fields.kind == "ollama" and identity is None:
        mistakes.append(("model_identity", "is missing; Ollama serves many models"))
    return mistakes + _key_mistakes(fields) + _header_mistakes(fields)


def _key_mistakes(fields: _Fields) -> list[tuple[str, str]]:
    mistakes: list[tuple[str, str]] = []
    given = [name for name in _KEYS if getattr(fields, name) is not None]
    if len(given) > 1:
        mistakes.append((given[1], f"contradicts `{given[0]}`: give one of them"))
    if fields.api_key is not None and not _KEY.fullmatch(fields.api_key):
        mistakes.append(("api_key", "must be visible ASCII without spaces"))
    if (path := fields.api_key_file) is not None and not (path[0] == "/" and path.isprintable()):
        mistakes.append(("api_key_file", "must be an absolute path"))
    if fields.api_key_env is not None and not _VARIABLE.fullmatch(fields.api_key_env):
        mistakes.append(("api_key_env", "is not the name of a variable"))
    return mistakes


def _header_mistakes(fields: _Fields) -> list[tuple[str, str]]:
    mistakes: list[tuple[str, str]] = []
    has_key = any(getattr(fields, name) is not None for name in _KEYS)
    seen: set[str] = set()
    for name, value in fields.headers.items():
        where = f"headers.{name[:64]}"
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            mistakes.append((where, "is not the name of a header"))
        elif lower in _OWN_HEADERS:
            mistakes.append((where, "is set by the client itself"))
        elif lower == "authorization" and has_key:
            mistakes.append((where, "contradicts `api_key`"))
        elif lower in seen:
            mistakes.append((where, "stands twice"))
        elif not value.isascii() or not (value + " ").isprintable():
            mistakes.append((where, "must hold visible ASCII"))
        seen.add(lower)
    return mistakes


def _normal_url(url: SplitResult) -> str:
    """Lower-case scheme and host, no default port, no trailing slash, no trailing `/v1`."""
    host = (url.hostname or "").lower()
    netloc = f"[{host}]" if ":" in host else host
    if url.port is not None and url.port != DEFAULT_PORTS[url.scheme]:
        netloc = f"{netloc}:{url.port}"
    path = url.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((url.scheme, netloc, path, "", ""))
