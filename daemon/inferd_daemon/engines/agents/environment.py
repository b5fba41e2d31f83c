"""The environment of a run: what is named here and by the profile, and nothing else.

A program's name search and its language pass; so do the operator's proxies and certificates,
without which a vendor cannot be reached. Homes are the run's own.
"""

import os
from collections.abc import Iterable, Mapping

from .profile import AgentProfile, Place
from .request import AgentRequest

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
    profile: AgentProfile, request: AgentRequest, place: Place
) -> dict[str, str]:
    """A run's environment, before what the profile adds to it."""
    given = request.environment
    passes = () if request.upstream is not None else (*PROXIES, *profile.login_variables)
    return {
        **_kept(given, (*ALWAYS, *passes, *request.passes)),
        **profile.switches,
        **_plain(given),
        "HOME": str(place.home),
        "TMPDIR": str(place.tmp),
    }


def probe_environment(profile: AgentProfile, environment: Mapping[str, str]) -> dict[str, str]:
    """For asking the CLI about itself and the operator's login: that is in the operator's home."""
    passes = (*ALWAYS, "HOME", *profile.login_variables, *profile.home_variables)
    return {**_kept(environment, passes), **profile.switches, **_plain(environment)}


def _kept(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: environment[name] for name in names if environment.get(name)}


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": environment.get("PATH") or os.defpath, "TERM": "dumb", "NO_COLOR": "1"}


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Values that no error may show, by the names they have. A proxy's address may hold one."""
    return [
        value
        for name, value in environment.items()
        if value and any(word in name for word in _SECRET_WORDS)
    ]
