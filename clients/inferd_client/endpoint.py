"""HTTP to a lease's endpoint: clients that are set up for it, and what other tools need.

Sends nothing itself. httpx is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from inferd_proto import EndpointDescriptor

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 600.0
"""Of silence: a long prompt is read for minutes before its first token."""


def http_client(endpoint: EndpointDescriptor) -> "httpx.Client":
    """A client whose requests go to the endpoint: `client.post("/chat/completions", json=…)`.

    Headers and the Unix socket are set; the environment's proxies are not for a local socket.
    """
    import httpx

    transport = httpx.HTTPTransport(uds=endpoint.uds) if endpoint.uds else None
    return httpx.Client(
        base_url=endpoint.base_url,
        headers=endpoint.headers,
        transport=transport,
        timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        trust_env=False,
    )


def async_http_client(endpoint: EndpointDescriptor) -> "httpx.AsyncClient":
    """`http_client` for trio and asyncio."""
    import httpx

    transport = httpx.AsyncHTTPTransport(uds=endpoint.uds) if endpoint.uds else None
    return httpx.AsyncClient(
        base_url=endpoint.base_url,
        headers=endpoint.headers,
        transport=transport,
        timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        trust_env=False,
    )


def api_key(endpoint: EndpointDescriptor) -> str | None:
    """The bearer key among the endpoint's headers, as tools ask for it; None without one."""
    for name, value in endpoint.headers.items():
        scheme, _, key = value.partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "bearer":
            return key.strip()
    return None
