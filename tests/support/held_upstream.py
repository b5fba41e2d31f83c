"""A model server whose answers wait for the test's word, however long other things take."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

WORD = "at-last"
_CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "held",
    "choices": [{"index": 0, "delta": {"content": WORD}, "finish_reason": "stop"}],
}
_EVENTS = f"data: {json.dumps(_CHUNK)}\n\ndata: [DONE]\n\n".encode()


class HeldUpstream(NamedTuple):
    """`config` has the route `held` to it. Chats are answered once `told` is set."""

    config: str
    told: threading.Event


@contextmanager
def held_upstream() -> Iterator[HeldUpstream]:
    """Serve on a loopback port until the block ends."""
    told = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            told.wait()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(_EVENTS)))
            self.end_headers()
            self.wfile.write(_EVENTS)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        config = f'[backends.held]\nkind = "openai_compat"\nbase_url = "{url}"\n'
        config += '[routes.held]\nbackends = ["held"]\n'
        try:
            yield HeldUpstream(config, told)
        finally:
            told.set()
            server.shutdown()
            thread.join()
