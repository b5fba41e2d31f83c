"""What the keys of a backend's table must be in themselves and to each other, beyond their types.

Pure: looks at no file and no socket. Each rule reads only keys whose type is right, so that one
mistake does not hide another, and never repeats a value that may be secret.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from .host_names import is_host
from .lines import Path

Table = Mapping[str, object]
Mistakes = Iterator[tuple[Path, str]]

MAX_URL_CHARS = 4096
API_PREFIXES: Mapping[str, str] = {"openrouter": "/api"}
"""What stands before `/v1`, for the kinds of upstream that have something there."""
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:[0-9]*)?")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VALUE = re.compile(r"[!-~]([ !-~]*[!-~])?")
_OF_TRANSPORT = ("content-length", "transfer-encoding", "connection")
_EMPTY = "is empty; leave it out instead"


def broken_rules(kind: object, table: Table) -> Mistakes:
    """Every rule that a backend of `kind` breaks, by the path below its table.

    What a `llama_server` must be is its engine's to say.
    """
    if kind == "openai_compat":
        yield from _empty(table, "uds", "model", "api_key_file", "tls_ca_file")
        yield from _address(table)
        yield from _key(table)
        yield from _headers(table)
        yield from _abilities(table)
    elif kind == "agent":
        yield from _empty(table, "model", "upstream")
        if table.get("model") is None and table.get("upstream") is None:
            yield ("model",), "is missing; or give `upstream`, a route that it runs on"
    elif kind == "libllama":
        yield from _empty(table, "model", "mmproj", "alias")
        yield from _modes(table)


def base_url_mistake(base_url: str, api_prefix: str = "") -> str | None:
    """Why it is not a scheme and a host alone; a trailing `/v1` is no mistake, nor is what the
    upstream has before it.
    """
    form = "must be http://host or https://host, with a port if needed"
    if len(base_url) > MAX_URL_CHARS or not base_url.isprintable():
        return form
    try:
        url = urlsplit(base_url)
        host, _ = url.hostname, url.port
    except ValueError:
        return form
    if url.scheme not in ("http", "https") or not host:
        return form
    authority = url.netloc.rpartition("@")
    if authority[1]:
        return "must hold no user or password; use api_key_file"
    if not _AUTHORITY.fullmatch(authority[2]):
        return form
    if not is_host(host):
        return "must name a host that can be looked up: an address, or a name in ASCII"
    path = url.path.lower().rstrip("/").removesuffix("/v1")
    if path not in ("", api_prefix) or "?" in base_url or "#" in base_url:
        kinds = [kind for kind, prefix in API_PREFIXES.items() if prefix == path]
        hint = f'; or set upstream = "{kinds[0]}"' if kinds else ""
        return f"must end after the host; `{api_prefix}/v1/…` is appended{hint}"
    return None


def _empty(table: Table, *names: str) -> Mistakes:
    for name in names:
        text = table.get(name)
        if isinstance(text, str) and not text.strip():
            yield (name,), _EMPTY
        elif isinstance(text, str) and "\0" in text:
            yield (name,), "holds a NUL"


def _address(table: Table) -> Mistakes:
    base_url = table.get("base_url", "http://localhost")
    if not isinstance(base_url, str):
        return
    mistake = base_url_mistake(base_url, API_PREFIXES.get(str(table.get("upstream")), ""))
    if mistake is not None:
        yield ("base_url",), mistake
    elif table.get("tls_ca_file") is not None and not base_url.lower().startswith("https:"):
        yield ("tls_ca_file",), "needs a base_url with https://"


def _key(table: Table) -> Mistakes:
    key = table.get("api_key")
    given = [
        name for name in ("api_key", "api_key_file", "api_key_env") if table.get(name) is not None
    ]
    for name in given[1:]:
        yield (name,), f"excludes {given[0]}; give one of them"
    variable = table.get("api_key_env")
    if isinstance(variable, str) and not _VARIABLE.fullmatch(variable):
        yield ("api_key_env",), "is not the name of a variable"
    if isinstance(key, str) and not is_key(key):
        yield ("api_key",), "must be one line of ASCII"


def is_key(text: str) -> bool:
    """Whether it can be sent as a bearer token."""
    return text.isascii() and text.isprintable()


def _headers(table: Table) -> Mistakes:
    headers = table.get("headers")
    if not isinstance(headers, dict):
        return
    for name, value in headers.items():
        where = ("headers", name)
        if not _NAME.fullmatch(name):
            yield where, "is no name of a header that can be sent"
        elif name.lower() in _OF_TRANSPORT:
            yield where, "is the transport's own"
        elif isinstance(value, str) and value and not _VALUE.fullmatch(value):
            yield where, "its value must be one line of ASCII without spaces around it"


def _abilities(table: Table) -> Mistakes:
    if table.get("tools") is False and table.get("tool_choice") is True:
        yield ("tool_choice",), "contradicts `tools = false`"
    rate = table.get("audio_sample_rate")
    # llama-server tells itself whether its model takes audio
    told = table.get("audio") is True or table.get("upstream") == "llama_server"
    if rate is not None and not told:
        yield ("audio_sample_rate",), "needs `audio = true`"


def _modes(table: Table) -> Mistakes:
    reranking, pooling = table.get("reranking") is True, table.get("pooling")
    embeddings = table.get("embeddings") is True
    if reranking and embeddings:
        yield ("embeddings",), "contradicts `reranking`; one worker does one of them"
    elif reranking and pooling in ("none", "mean", "cls", "last"):
        yield ("pooling",), f"{pooling!r} contradicts `reranking`, which needs rank"
    elif embeddings and pooling == "rank":
        yield ("pooling",), "'rank' contradicts `embeddings`; ask for `reranking`"
