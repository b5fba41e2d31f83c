"""The boot spec of a spawned llama-server, normalised once (leases.md section 3).

Pure: reads no file, opens no socket. A spec that exists is a right one as far as that can be told
without looking at the machine. It never shows its key.
"""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec
from msgspec import Struct

from inferd_proto import JsonObject

from ...config.boot_fields import LOCAL_SURFACE, BootFields
from ...config.checking import check, dotted
from ...errors import CallerFault
from ..secret import Secret
from .boot_rules import broken_rules, is_loopback, normal_prefix


class BootSpec(Struct, frozen=True, kw_only=True):
    """A right boot spec. None: the server's own default. Make it with `normalise`.

    `model`, `mmproj`, `api_key_file` are absolute paths; `api_prefix` is "" or "/path";
    `model_identity` is always there. `port` None means a Unix socket, 0 a free loopback port.
    """

    model: str
    model_identity: str
    binary_path: str | None = None
    launcher_args: list[str] = []
    mmproj: str | None = None
    alias: str | None = None
    host: str | None = None
    port: int | None = None
    api_prefix: str = ""
    ctx_size: int | None = None
    gpu_layers: int | str | None = None
    threads: int | None = None
    threads_batch: int | None = None
    threads_http: int | None = None
    parallel: int | None = None
    flash_attn: str | None = None
    embeddings: bool = False
    reranking: bool = False
    pooling: str | None = None
    api_key: Secret | None = None
    api_key_file: str | None = None
    timeout_seconds: int | None = None
    ready_timeout_ms: int = 60_000
    readiness_interval_ms: int = 3
    health_interval_ms: int = 2_000
    stop_timeout_ms: int = 5_000
    execution_surface: str = LOCAL_SURFACE
    environment: dict[str, str] = {}
    extra_args: list[str] = []
    metadata: JsonObject = {}

    def instance_key(self) -> str:
        """What makes two specs mean the same runtime: a readable stem and 128 bits of hash.

        Covers everything that changes the process. Left out: `metadata`, `model_identity` (it
        names the model to clients, the process never hears it), and how the daemon watches it.
        """
        # What is not given leaves no trace, so that a field of tomorrow changes no key of today.
        parts = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name not in _ASIDE and _is_given(getattr(self, name))
        }
        if self.api_key is not None:
            parts["api_key"] = self.api_key.fingerprint()
        text = msgspec.json.encode(parts, order="deterministic")
        return f"{_slug(PurePosixPath(self.model).stem)}-{hashlib.sha256(text).hexdigest()[:32]}"

    def to_json(self) -> JsonObject:
        """What `normalise` makes this spec from again. Holds the key: for the journal alone."""
        out = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.api_key is not None:
            out["api_key"] = self.api_key.reveal()
        return {name: value for name, value in out.items() if value is not None}

    def privileged(self) -> list[str]:
        """The given fields by which its author has the daemon's user run or read their choice.

        Who is not the daemon's user or an administrator must not be served with them.
        """
        reach = ("binary_path", "launcher_args", "environment", "extra_args", "api_key_file")
        return [name for name in reach if getattr(self, name)]


class BootSpecError(CallerFault):
    """A spec that is wrong. `mistakes` are all of them, each naming its field."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        self.mistakes = mistakes
        told = "; ".join(f"`{name}` {text}" for name, text in mistakes[:_TOLD])
        more = f"; and {len(mistakes) - _TOLD} more" if len(mistakes) > _TOLD else ""
        super().__init__(f"the boot spec is wrong: {told}{more}")
        self.details = {"mistakes": [{"field": name, "message": text} for name, text in mistakes]}


def normalise(raw: Mapping[str, object], *, allow_remote: bool = False) -> BootSpec:
    """The spec that `raw` means.

    Raises BootSpecError with every mistake. `allow_remote` admits a host that other machines
    reach. Files are not looked at: `model` may yet be missing, or no model.
    """
    data = {name: value for name, value in raw.items() if value is not None}
    flash = data.get("flash_attn")
    if isinstance(flash, bool):
        data["flash_attn"] = "on" if flash else "off"
    fields, wrong = check(data, BootFields)
    mistakes = [(dotted(path), text) for path, text in wrong]
    bad = {path[0] for path, _ in wrong}
    sound = {name: value for name, value in data.items() if name not in bad}
    mistakes += broken_rules(sound, allow_remote=allow_remote)
    if fields is None or mistakes:
        raise BootSpecError(mistakes)
    return _complete(fields)


def _complete(fields: BootFields) -> BootSpec:
    values: dict[str, Any] = {name: getattr(fields, name) for name in fields.__struct_fields__}
    values["model"] = str(PurePosixPath(fields.model))
    values["api_prefix"] = normal_prefix(fields.api_prefix)
    values["api_key"] = None if fields.api_key is None else Secret(fields.api_key)
    values["execution_surface"] = LOCAL_SURFACE
    if fields.model_identity is None:
        values["model_identity"] = fields.alias or PurePosixPath(fields.model).stem
    if fields.port is not None:
        host = (fields.host or "127.0.0.1").strip("[]")
        values["host"] = "127.0.0.1" if host == "localhost" else host
    if fields.reranking:
        values["pooling"] = "rank"
    return BootSpec(**values)


def is_local(spec: BootSpec) -> bool:
    """Whether only this machine can reach the runtime."""
    return spec.host is None or is_loopback(spec.host)


def _is_given(value: object) -> bool:
    # A zero is an answer: `ctx_size` 0 and `gpu_layers` 0 say something.
    return value is not None and value is not False and value not in ("", [], {})


def _slug(name: str) -> str:
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:32].strip("-") or "model"


_ASIDE = {
    "metadata",
    "model_identity",
    "ready_timeout_ms",
    "readiness_interval_ms",
    "health_interval_ms",
    "stop_timeout_ms",
}
_TOLD = 12
