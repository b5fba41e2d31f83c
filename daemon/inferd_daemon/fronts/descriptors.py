"""How many clients the process's limit of open files allows.

Each client is one descriptor. Without a reserve, clients could take those that the daemon needs
to reach its backends, and every request would fail.
"""

import resource

RESERVE = 128
"""Descriptors kept from clients: standard streams, logs, journal, and connections to backends."""


def connection_limit(wanted: int) -> int:
    """At most `wanted`; raises the soft limit as far as that needs and the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - RESERVE))
