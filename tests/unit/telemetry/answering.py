"""A server that answers every query with what it is told: for answers that no real Prometheus gives."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answer:
    """What is answered; may be changed while the server runs. ``delay_seconds`` is cut short at the end."""

    def __init__(self) -> None:
        self.status = 200
        self.content: Any = {"status": "success", "data": {"resultType": "vector", "result": []}}
        self.delay_seconds = 0.0
        self.headers: dict[str, str] = {}
        # Instead of the same to all: status and content by the body that was sent.
        self.respond: Callable[[bytes], tuple[int, Any]] | None = None
        self.asked = 0
        self.last_authorization: str | None = None
        self.last_path = ""
        self.last_body = b""

    def vector(self, *elements: tuple[dict[str, str], float, str]) -> None:
        """Answer with an instant vector of (labels, evaluation time, value)."""
        result = [{"metric": labels, "value": [time, value]} for labels, time, value in elements]
        self.content = {"status": "success", "data": {"resultType": "vector", "result": result}}


@contextmanager
def answering() -> Iterator[tuple[str, Answer]]:
    """Run the server on loopback and give its URL."""
    answer, ended = Answer(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer.last_path = self.path
            answer.last_body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer.asked += 1
            answer.last_authorization = self.headers.get("Authorization")
            ended.wait(answer.delay_seconds)
            status, content = answer.status, answer.content
            if answer.respond is not None:
                status, content = answer.respond(answer.last_body)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answer
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
