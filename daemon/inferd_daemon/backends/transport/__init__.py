"""HTTP/1.1 over TCP and Unix sockets, in clear or over TLS, behind httpx's transport interface.

Made for streams of small chunks: all that one receive brought is parsed and handed over at once.
Proxies and HTTP/2 it does not know. TLS is loaded by who needs it: `TlsTransport` of `.tls`.
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
