"""`GET /metrics`."""

from starlette.requests import Request
from starlette.responses import Response


async def metrics(request: Request) -> Response:
    """None yet."""
    return Response(b"", media_type="text/plain")
