"""HTTP/1.1 in clear over TCP and Unix sockets, behind httpx's transport interface.

Made for streams of small chunks: all that one receive brought is parsed and handed over at once.
TLS, proxies and HTTP/2 are httpx's own business, not this one's.
"""

from .connection import Connection
from .http import PlainTransport, ResponseBody
from .idle_pool import IdlePool
from .readiness_hub import ReadinessHub
from .response_parser import MAX_FRAMING_BYTES, MAX_HEAD_BYTES, ResponseParser

__all__ = [
    "MAX_FRAMING_BYTES",
    "MAX_HEAD_BYTES",
    "Connection",
    "IdlePool",
    "PlainTransport",
    "ReadinessHub",
    "ResponseBody",
    "ResponseParser",
]
