"""One request to a runtime on a connection of its own, and what an answer says of its health.

For probes alone: they must not wait behind requests for a connection. The caller sets the deadline.
"""

import errno

import httpx
import msgspec

from ..backends.runtime import Endpoint
from .base import Health

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""A `/props` reply holds the chat template; nothing that a probe asks for is larger."""
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Why the daemon cannot even ask: no fault of who would answer."""


class ProbeError(Exception):
    """No answer, or none that is HTTP."""


async def fetch(endpoint: Endpoint, path: str, body: object = None) -> tuple[int, bytes]:
    """GET `path` below the API prefix, or POST a JSON `body` there: the status and the answer.

    Raises ProbeError.
    """
    from ..backends.transport import PlainTransport

    host = "localhost" if endpoint.uds else f"{endpoint.host}:{endpoint.port}"
    headers = {"Connection": "close"}
    if endpoint.key is not None:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = httpx.Request(
        "GET" if body is None else "POST",
        f"http://{host}{endpoint.api_prefix}{path}",
        headers=headers,
        content=None if body is None else msgspec.json.encode(body),
    )
    return await exchange(PlainTransport(uds=str(endpoint.uds) if endpoint.uds else None), request)


async def exchange(
    transport: "httpx.AsyncBaseTransport", request: "httpx.Request"
) -> tuple[int, bytes]:
    """Send `request` and close the transport: the status and the body. Raises ProbeError."""
    path = request.url.path
    try:
        async with transport:
            response = await transport.handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            body = bytearray()
            try:
                async for piece in response.stream:
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise ProbeError(f"{path}: the reply is too long")
            finally:
                await response.aclose()
    except (httpx.HTTPError, UnicodeError) as error:  # a host that DNS cannot even be asked for
        raise ProbeError(f"{path}: {error}") from error
    return response.status_code, bytes(body)


async def look(endpoint: Endpoint) -> Health:
    """One health check, by `/health`, or by `/v1/models` where there is no `/health`."""
    try:
        status, body = await fetch(endpoint, "/health")
        if status == 404:
            status, body = await fetch(endpoint, "/v1/models")
    except ProbeError as error:
        return missed(error)
    return judge(status, body)


def missed(error: ProbeError) -> Health:
    """What a look that brought no answer says: of the runtime, or only of the daemon."""
    return Health.UNSEEN if _is_ours(error) else Health.NO_ANSWER


def _is_ours(error: BaseException | None) -> bool:
    if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
        return True
    if isinstance(error, BaseExceptionGroup):
        # Of a host with several addresses, each attempt has an error.
        return any(_is_ours(each) for each in error.exceptions)
    return error is not None and _is_ours(error.__cause__ or error.__context__)


def judge(status: int, body: bytes) -> Health:
    """What an answer to a health check means."""
    if status == 200:
        return Health.DEGRADED if b'"degraded"' in body else Health.HEALTHY
    return Health.LOADING
