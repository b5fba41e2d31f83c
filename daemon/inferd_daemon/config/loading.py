"""Configuration files: found, read, checked as a whole, and shown.

Looks at no file but the configuration itself: what its words name on the machine is for others.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from ..errors import OperatorError
from .backend_rules import broken_rules
from .checking import Mistake, check, dotted
from .http_rules import broken_http_rules
from .lines import KeyLines
from .lines import Path as KeyPath
from .names import broken_names
from .schema import Config

MAX_CONFIG_BYTES = 1024 * 1024
_REDACTED = "<secret>"
_URL_SECRET = re.compile(r"(?<=//)[^/?#]*(?=@)|(?<=\?)[^#]+")


class ConfigError(OperatorError):
    """The configuration is wrong; `mistakes` holds all of what is, in the order of the file."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source = source
        self.mistakes = mistakes
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{source}: {count}\n{lines}")


def find_config_file(environ: Mapping[str, str]) -> Path | None:
    """`$INFERD_CONFIG`, else `$XDG_CONFIG_HOME/inferd/config.toml` where that file exists."""
    named = environ.get("INFERD_CONFIG")
    if named:
        return Path(named)
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    path = Path(base) / "inferd" / "config.toml"
    return path if os.path.isfile(path) else None  # Path.is_file raises for what may not be read


class Draft(Struct, frozen=True):
    """A configuration that has been read, right or not.

    `sound` holds those of its backends, its `[daemon]` and its `[http]`, that are right in
    themselves: they may be checked further, whatever else is wrong.
    """

    source: str
    sound: Config
    _config: Config | None
    _found: list[tuple[KeyPath, str]]
    _text: str

    def finish(self, more: Iterable[tuple[KeyPath, str]] = ()) -> Config:
        """The configuration. Raises ConfigError with every mistake: its own, and `more`."""
        found = [*self._found, *more]
        if found:
            lines = KeyLines(self._text)
            mistakes = [Mistake(dotted(path), message, lines.find(path)) for path, message in found]
            raise ConfigError(self.source, sorted(mistakes, key=lambda mistake: mistake.line or 0))
        assert self._config is not None
        return self._config


def draft_of(config: Config, source: str) -> Draft:
    """Of a configuration that comes from no file."""
    return Draft(source, config, config, [], "")


def read_draft(path: Path) -> Draft:
    """Read and check the file. Raises ConfigError where it is no TOML at all."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(str(path), [Mistake("", f"cannot be read: {reason}")]) from None
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(str(path), [Mistake("", f"is over {MAX_CONFIG_BYTES} bytes")])
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Mistake("", "is not valid UTF-8")]) from None
    return parse_draft(text, str(path))


def parse_draft(text: str, source: str = "configuration") -> Draft:
    """Check a TOML text as a whole. Raises ConfigError where it is no TOML."""
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what Python says of a number too long
        raise ConfigError(source, [Mistake("", f"is not TOML: {error}")]) from None
    except RecursionError:
        raise ConfigError(source, [Mistake("", "nests too deep")]) from None
    config, found = check(data, Config)
    found += _broken_backends(data)
    found += _broken_http(data)
    found += broken_names(data)
    if not found:
        assert config is not None
        return Draft(source, config, config, [], text)
    return Draft(source, _sound(data, found), None, found, text)


def load_config(path: Path) -> Config:
    """Read and check the file. Raises ConfigError with every mistake."""
    return read_draft(path).finish()


def parse_config(text: str, source: str = "configuration") -> Config:
    """Check a TOML text as a whole. Raises ConfigError with every mistake."""
    return parse_draft(text, source).finish()


def render_config(config: Config) -> str:
    """The effective configuration as indented JSON, secrets replaced."""
    plain = msgspec.to_builtins(config)
    for table in plain["backends"].values():
        _redact(table)
    for client in (plain["http"] or {}).get("clients", {}).values():
        if client["key"] is not None:
            client["key"] = _REDACTED
    return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()


def _broken_backends(data: Mapping[str, object]) -> list[tuple[KeyPath, str]]:
    backends = data.get("backends")
    return [
        (("backends", name, *path), message)
        for name, table in (backends.items() if isinstance(backends, dict) else ())
        if isinstance(table, dict)
        for path, message in broken_rules(table.get("kind"), table)
    ]


def _broken_http(data: Mapping[str, object]) -> list[tuple[KeyPath, str]]:
    http, daemon = data.get("http"), data.get("daemon")
    if not isinstance(http, dict):
        return []
    remote = isinstance(daemon, dict) and daemon.get("allow_remote") is True
    return [
        (("http", *path), message) for path, message in broken_http_rules(http, allow_remote=remote)
    ]


def _sound(data: Mapping[str, object], found: list[tuple[KeyPath, str]]) -> Config:
    wrong = {path[:2] for path, _ in found}
    sound: dict[str, object] = {}
    for name in ("daemon", "http"):
        if name in data and not any(path[:1] == (name,) for path in wrong):
            sound[name] = data[name]
    backends = data.get("backends")
    if isinstance(backends, dict):
        sound["backends"] = {
            name: table for name, table in backends.items() if ("backends", name) not in wrong
        }
    config, _ = check(sound, Config)
    assert config is not None
    return config


def _redact(backend: dict[str, object]) -> None:
    """Keys, and where else people put them: headers, and the user and query parts of a URL."""
    for key, value in backend.items():
        match key, value:
            case "api_key", str():
                backend[key] = _REDACTED
            case "headers" | "environment", dict():
                backend[key] = dict.fromkeys(value, _REDACTED)
            case "base_url", str(url):
                backend[key] = _URL_SECRET.sub(_REDACTED, url)
