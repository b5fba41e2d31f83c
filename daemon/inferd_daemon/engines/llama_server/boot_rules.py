"""What the fields of a boot spec must be to each other and in themselves, beyond their types.

Pure: looks at no file and no socket. Each rule yields (field, sentence); it reads only fields
whose types were found right, so that one mistake does not hide another.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ...config.boot_fields import LOCAL_SURFACE
from .flag_table import OWNER, REFUSED, spelled

Given = Mapping[str, Any]
Mistakes = Iterator[tuple[str, str]]

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[!-+\--~]+")  # visible ASCII, without the comma that separates keys
_TEXTS = ("binary_path", "model", "mmproj", "alias", "model_identity", "host", "api_key_file")
_PATHS = ("model", "mmproj", "api_key_file")


def broken_rules(given: Given, *, allow_remote: bool) -> Mistakes:
    """Every rule that the well-typed fields `given` break."""
    yield from _texts(given)
    yield from _address(given, allow_remote)
    yield from _keys(given)
    yield from _surface(given)
    yield from _modes(given)
    yield from _environment(given)
    yield from _arguments(given)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine alone: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def surface_of(value: object) -> str:
    """The name in an `execution_surface`, plain or as `{"surface_kind": name}`."""
    if isinstance(value, dict):
        value = value.get("surface_kind", "")
    return str(value)


def _texts(given: Given) -> Mistakes:
    for name in _TEXTS:
        text = given.get(name)
        if text is None:
            continue
        if not text.strip():
            yield name, "is empty; leave it out instead"
        elif not text.isprintable():
            yield name, "holds a control character"
        elif name in _PATHS and not PurePosixPath(text).is_absolute():
            yield name, "must be an absolute path; the daemon has another working directory"
    binary = given.get("binary_path") or ""
    if "/" in binary and not binary.startswith("/"):
        yield "binary_path", "must be an absolute path or a bare name to be found on PATH"
    if "," in (given.get("alias") or ""):
        yield "alias", "must be one name, without a comma"
    prefix = given.get("api_prefix")
    if prefix is not None and not _PREFIX.fullmatch(normal_prefix(prefix)):
        yield "api_prefix", "must be a path of plain segments, such as /llm"
    elif prefix is not None and {".", ".."} & set(prefix.split("/")):
        yield "api_prefix", "must not hold `.` or `..`"


def normal_prefix(prefix: str) -> str:
    """With a leading slash and no trailing one; "" where there is none."""
    bare = prefix.strip("/")
    return f"/{bare}" if bare else ""


def _address(given: Given, allow_remote: bool) -> Mistakes:
    host, port = given.get("host"), given.get("port")
    if host is None:
        return
    if port is None:
        yield "host", "needs `port`; without a port the runtime listens on a Unix socket only"
    if host.endswith(".sock") or "/" in host:
        yield "host", "must be an address; the daemon places the Unix socket itself"
    elif "," in host:
        yield "host", "must be one address"
    elif not is_loopback(host) and not allow_remote:
        yield "host", f"{host!r} is not a loopback address, and `allow_remote` is not set"


def _keys(given: Given) -> Mistakes:
    key = given.get("api_key")
    if key is not None and given.get("api_key_file") is not None:
        yield "api_key_file", "contradicts `api_key`; give one of them"
    if key is not None and not _KEY.fullmatch(key):
        yield "api_key", "must be visible ASCII without spaces or commas, and not empty"


def _surface(given: Given) -> Mistakes:
    if "execution_surface" in given:
        name = surface_of(given["execution_surface"])
        if name != LOCAL_SURFACE:
            yield (
                "execution_surface",
                f"{name[:64]!r} is not supported; runtimes are started as {LOCAL_SURFACE} only",
            )


def _modes(given: Given) -> Mistakes:
    reranking, pooling = given.get("reranking"), given.get("pooling")
    if reranking and given.get("embeddings"):
        yield "embeddings", "contradicts `reranking`; one server does one of them"
    if reranking and pooling not in (None, "rank"):
        yield "pooling", f"{pooling!r} contradicts `reranking`, which needs rank"
    if given.get("embeddings") and pooling == "rank":
        yield "pooling", "'rank' contradicts `embeddings`; ask for `reranking`"


def _environment(given: Given) -> Mistakes:
    for name, value in (given.get("environment") or {}).items():
        where = f"environment.{name[:64]}"
        if not _VARIABLE.fullmatch(name):
            yield where, "is not the name of a variable"
        elif name.startswith("LLAMA_"):
            yield where, "contradicts the fields; use them, or `extra_args`"
        elif name.startswith("INFERD_"):
            yield where, "is the daemon's own"
        elif "\0" in value:
            yield where, "holds a NUL"


def _arguments(given: Given) -> Mistakes:
    key = given.get("api_key")
    for name in ("launcher_args", "extra_args"):
        for index, argument in enumerate(given.get(name) or ()):
            where = f"{name}[{index}]"
            if "\0" in argument:
                yield where, "holds a NUL"
            elif key and key in argument:
                yield where, "holds the value of `api_key`, and argv is public"
    for index, argument in enumerate(given.get("extra_args") or ()):
        flag = spelled(argument)
        if flag in OWNER:
            yield f"extra_args[{index}]", f"{flag} contradicts the field `{OWNER[flag]}`; set that"
        elif flag in REFUSED:
            yield f"extra_args[{index}]", f"{flag} is refused: {REFUSED[flag]}"
