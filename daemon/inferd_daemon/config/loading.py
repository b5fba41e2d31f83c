"""Configuration files: found, read, checked as a whole, and shown."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..errors import OperatorError
from .checking import Mistake, check, dotted
from .lines import KeyLines
from .lines import Path as KeyPath
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


def load_config(path: Path) -> Config:
    """Read and check the file. Raises ConfigError with every mistake."""
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
    return parse_config(text, str(path))


def parse_config(text: str, source: str = "configuration") -> Config:
    """Check a TOML text as a whole. Raises ConfigError with every mistake."""
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what Python says of a number too long
        raise ConfigError(source, [Mistake("", f"is not TOML: {error}")]) from None
    except RecursionError:
        raise ConfigError(source, [Mistake("", "nests too deep")]) from None
    config, found = check(data, Config)
    if config is not None:
        found = _check_meaning(config)
    if found:
        lines = KeyLines(text)
        mistakes = [Mistake(dotted(path), message, lines.find(path)) for path, message in found]
        raise ConfigError(source, sorted(mistakes, key=lambda mistake: mistake.line or 0))
    assert config is not None
    return config


def render_config(config: Config) -> str:
    """The effective configuration as indented JSON, secrets replaced."""
    plain = msgspec.to_builtins(config)
    for table in plain["backends"].values():
        _redact(table)
    return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()


def _check_meaning(config: Config) -> list[tuple[KeyPath, str]]:
    """What each key alone cannot tell: names that must exist, names that collide."""
    found: list[tuple[KeyPath, str]] = []
    for name, route in config.routes.items():
        named: set[str] = set()
        for index, tier in enumerate(route.tiers):
            path = ("routes", name, "backends", index)
            for backend in tier:
                if backend not in config.backends:
                    there_is = _names(config.backends)
                    found.append((path, f"no backend {backend!r}; there is {there_is}"))
                elif backend in named:
                    found.append((path, f"{backend!r} is named already"))
                named.add(backend)
    taken = dict.fromkeys(config.routes, "a route")
    for name, route in config.routes.items():
        for alias in route.aliases:
            if alias in taken:
                found.append((("routes", name, "aliases"), f"{alias!r} is {taken[alias]} already"))
            taken[alias] = f"an alias of {name!r}"
    if config.default_route is not None and config.default_route not in taken:
        message = f"no route {config.default_route!r}; there is {_names(config.routes)}"
        found.append((("default_route",), message))
    return found


def _names(table: Mapping[str, object]) -> str:
    return ", ".join(table) if table else "none"


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
