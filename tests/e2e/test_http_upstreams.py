"""What an upstream's refusals become over HTTP: the status, when to come again, the code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.support.http_client import ask, chat, http_daemon

CONFIG = """
[backends.a]
kind = "openai_compat"
base_url = "http://127.0.0.1:{port}"
[routes.r]
backends = ["a"]
"""
TOO_LONG = {
    "code": 400,
    "message": "request (3219 tokens) exceeds the available context size (256 tokens)",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 3219,
    "n_ctx": 256,
}


@contextmanager
def refusing(status: int, error: object, *headers: tuple[str, str]) -> Iterator[int]:
    """An upstream that refuses all the same way; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"error": error}).encode()
            self.send_response(status)
            for name, value in (*headers, ("content-length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("stream", [True, False])
def test_one_without_room_is_asked_on(stream: bool) -> None:
    """Its own word on when to come again reaches the client, and no breaker opens."""
    with (
        refusing(429, "slow down", ("Retry-After", "7")) as port,
        http_daemon(more=CONFIG.format(port=port)) as daemon,
    ):
        for _ in range(8):
            answer = ask(daemon, chat("r", stream=stream))
            assert (answer.status, answer.error["code"]) == (429, "queue_full")
            assert answer.headers["retry-after"] == "7"
            assert "slow down" in answer.error["message"]


def test_one_that_fails_and_then_its_breaker() -> None:
    with (
        refusing(500, "out of order") as port,
        http_daemon(more=CONFIG.format(port=port)) as daemon,
    ):
        answers = [ask(daemon, chat("r")) for _ in range(8)]
        assert answers[0].status == 502
        assert "retry-after" not in answers[0].headers
        assert answers[-1].status == 503
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert {answer.error["code"] for answer in answers} == {"backend_unavailable"}


def test_a_prompt_that_is_too_long() -> None:
    """As llama-server says it, and as OpenAI's clients know it."""
    with refusing(400, TOO_LONG) as port, http_daemon(more=CONFIG.format(port=port)) as daemon:
        answer = ask(daemon, chat("r"))
        assert answer.status == 400
        assert answer.error["code"] == "context_length_exceeded"
        assert answer.error["param"] == "messages"
        assert answer.error["type"] == "invalid_request_error"
        assert "upstream" not in answer.error["message"]
