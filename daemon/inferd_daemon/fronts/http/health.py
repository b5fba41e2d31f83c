"""`GET /health`: whether the daemon takes requests now. Tells nothing that needs a key."""

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from .context import HttpContext


async def health(request: Request) -> Response:
    """200 when ready, 503 while starting or draining."""
    context: HttpContext = request.app.state.context
    state = context.view.state
    ready = state == "ready"
    body = msgspec.json.encode({"status": "ok" if ready else state})
    return Response(body, 200 if ready else 503, media_type="application/json")
