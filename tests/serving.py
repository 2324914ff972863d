"""A server of OpenAI's chat completions in this process, which answers as a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Request:
    """What came, and ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, gone: threading.Event) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        self.method, self.path, self.headers = handler.command, handler.path, handler.headers
        self.body = handler.rfile.read(length)
        self.gone = gone
        """Set where the server ends."""
        self._handler = handler

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def answer(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self._handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()
        self._handler.wfile.write(content)

    def begin(self, length: int) -> None:
        """The head of an answer whose body is still to come."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Length", str(length))
        self._handler.end_headers()

    def send(self, content: bytes) -> None:
        self._handler.wfile.write(content)

    def raw(self, content: bytes) -> None:
        """Bytes in the place of an answer, then the end of the connection."""
        self._handler.wfile.write(content)
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_WR)

    def reply(self, text: str, finish_reason: str = "stop", usage: dict[str, int] | None = None) -> None:
        """A chat completion."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        answer: dict[str, Any] = {"id": "1", "object": "chat.completion", "choices": [choice]}
        self.answer(json.dumps(answer | ({"usage": usage} if usage else {})).encode())


class Serving:
    """A context manager; gives the server's URL. Requests for /models are answered unless `models` is None."""

    def __init__(self, act: Callable[[Request], None], models: tuple[str, ...] | None = ("tiny",)) -> None:
        self._gone = threading.Event()
        self.seen: list[Request] = []
        """Requests for completions, in the order in which they came."""
        gone, seen = self._gone, self.seen

        class Handler(BaseHTTPRequestHandler):
            def _act(self) -> None:
                request = Request(self, gone)
                with contextlib.suppress(OSError):  # the client has left
                    if models is not None and self.path.endswith("/models"):
                        request.answer(json.dumps({"data": [{"id": name} for name in models]}).encode())
                        return
                    seen.append(request)
                    act(request)

            do_GET = do_POST = _act  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> str:
        self._thread.start()
        return self.url

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
