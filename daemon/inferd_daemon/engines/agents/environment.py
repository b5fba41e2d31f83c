"""The environment of a run: what is named here and by the profile, and nothing else.

A program's name search and its language pass; so do the operator's proxies and certificates,
without which a vendor cannot be reached. Homes are the run's own.
"""

import os
from collections.abc import Iterable, Mapping

from .profile import Place

ALWAYS = (
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
)
PROXIES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
)
"""Only for a vendor's server: the way to a local upstream leads through no proxy."""
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PROXY", "proxy")


def private_environment(
    environment: Mapping[str, str], place: Place, *, passes: Iterable[str], local: bool
) -> dict[str, str]:
    """A run's environment, before what the profile sets. `local`: it has an upstream of ours."""
    named = [*ALWAYS, *passes, *(() if local else PROXIES)]
    kept = {name: environment[name] for name in named if environment.get(name)}
    return kept | {
        "PATH": environment.get("PATH") or os.defpath,
        "HOME": str(place.home),
        "TMPDIR": str(place.tmp),
        "TERM": "dumb",
        "NO_COLOR": "1",
    }


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Values that no error may show, by the names they have. A proxy's address may hold one."""
    return [
        value
        for name, value in environment.items()
        if value and any(word in name for word in _SECRET_WORDS)
    ]
