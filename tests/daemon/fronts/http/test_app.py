"""What the application answers by itself: where there is nothing, and where it fails."""

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import HttpConfig, MockConfig
from inferd_daemon.fronts.http.app import build_app
from inferd_daemon.fronts.http.context import HttpContext
from tests.daemon.fronts.conversation import view_of


async def fail(_request: Request) -> Response:
    raise KeyError("a secret")


@pytest.mark.parametrize("lease", ["", "/leases/one"])
@pytest.mark.parametrize(
    ("path", "envelope"),
    [
        ("/v1/chat/oops", {"error"}),
        ("/v1/responses/oops", {"error"}),
        ("/v1/messages/oops", {"error", "type"}),
    ],
)
async def test_a_fault_and_a_path_that_is_none(path: str, envelope: set[str], lease: str) -> None:
    """As JSON, in the shape of the API's clients, without what only the log may hold."""
    app = build_app(HttpContext(view_of(MockBackend("mock", MockConfig())), HttpConfig()))
    app.router.routes.append(Route(lease + path, fail, methods=["GET"]))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for method, asked, status in (
            ("GET", lease + path, 500),
            ("POST", lease + path, 405),
            ("GET", f"{lease}{path}/nowhere", 404),
        ):
            answer = await http.request(method, asked)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/json"
            assert set(answer.json()) == envelope
            assert "secret" not in answer.text
            if status == 500:
                assert answer.json()["error"]["message"].startswith("internal error")
