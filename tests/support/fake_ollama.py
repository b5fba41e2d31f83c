"""A fake of Ollama: a real HTTP server that behaves as its documented API, without any model.

It knows models by name, runs those that were asked something, and answers chats with one fixed
word. It stands in for the service, which cannot be had in tests.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORD = "fake"


@dataclass
class FakeOllama:
    """What it has and what it saw. Change it while it serves.

    `installed` maps full names, tags included, to capabilities (None: of a version that does not
    tell them). `running` maps those in memory to their context length. With `key` set, requests
    without it get 401; with `broken` set, every request gets that status.
    """

    installed: dict[str, list[str] | None] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    key: str | None = None
    broken: int | None = None
    root_url: str = ""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request, names in lower case."""

    def paths(self) -> list[str]:
        """Of the requests so far."""
        return [path for path, _ in self.seen]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and body."""
        match path:
            case "/api/version":
                return 200, {"version": "0.12.6"}
            case "/api/ps":
                return 200, {"models": [self._process(name) for name in self.running]}
            case "/v1/models":
                data = [{"id": name, "object": "model"} for name in self.installed]
                return 200, {"object": "list", "data": data}
        return 404, {"error": "404 page not found"}

    def post(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        if path not in ("/api/show", "/v1/chat/completions"):
            return 404, {"error": "404 page not found"}
        model = asked.get("model") or ""
        if not model:
            return 400, {"error": "model is required"}
        full = model if ":" in model else f"{model}:latest"
        if full not in self.installed:
            return 404, {"error": f"model '{model}' not found"}
        match path:
            case "/api/show":
                shown: dict[str, Any] = {"details": _details(), "model_info": {}, "template": ""}
                if (capabilities := self.installed[full]) is not None:
                    shown["capabilities"] = capabilities
                return 200, shown
            case "/v1/chat/completions":
                self.running[full] = 4096
                message = {"role": "assistant", "content": WORD}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                return 200, {"object": "chat.completion", "model": model, "choices": [choice]}
        return 404, {"error": "404 page not found"}

    def _process(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "model": name,
            "size": 5_137_025_024,
            "digest": "2ae6f6dd7a3dd734790bbbf58b8909a606e0e7e97e94b7604e0aa7ae4490e6d8",
            "details": _details(),
            "expires_at": "2031-06-04T14:38:31.83753-07:00",
            "size_vram": 5_137_025_024,
            "context_length": self.running[name],
        }


def _details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "7.2B",
        "quantization_level": "Q4_0",
    }


@contextmanager
def fake_ollama(port: int = 0, **fields: Any) -> Iterator[FakeOllama]:  # noqa: ANN401
    """Serve on a loopback port until the block ends; `fields` are those of `FakeOllama`."""
    fake = FakeOllama(**fields)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(None)

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _serve(self, body: bytes | None) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.seen.append((self.path, headers))
            if fake.broken is not None:
                status, answer = fake.broken, {"error": "broken"}
            elif fake.key is not None and headers.get("authorization") != f"Bearer {fake.key}":
                status, answer = 401, {"error": "unauthorized"}
            elif body is None:
                status, answer = fake.get(self.path)
            else:
                status, answer = fake.post(self.path, json.loads(body))
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """It stays silent: tests look at `seen`."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    fake.root_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
