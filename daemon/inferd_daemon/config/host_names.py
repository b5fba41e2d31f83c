"""What a host may be in a URL: an address, or a name as DNS knows them.

Pure. Whatever it lets pass can be looked up; what cannot would fail in odd places much later.
"""

import ipaddress
import re

MAX_NAME_CHARS = 253
"""Of a name without the dot that may stand at its end (RFC 1035)."""
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


def is_host(host: str) -> bool:
    """Whether `host`, without brackets, is one. A zone (`fe80::1%eth0`) makes it none, and so does
    a name that is not ASCII: its form for DNS (`xn--…`) is meant.
    """
    if ":" in host:
        return "%" not in host and _is_address(host)
    return len(host.removesuffix(".")) <= MAX_NAME_CHARS and _NAME.fullmatch(host) is not None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
