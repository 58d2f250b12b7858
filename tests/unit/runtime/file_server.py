"""A real HTTP file server on loopback that can be told to fail as servers do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Action = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each path with the next of its actions; the last one is repeated."""

    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        actions = self.server.actions.get(self.path.partition("?")[0], [status(404)])
        (actions.pop(0) if len(actions) > 1 else actions[0])(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Keep quiet."""


class FileServer(ThreadingHTTPServer):
    """Runs in a thread while it is entered."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.actions: dict[str, list[Action]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def content(body: bytes, kind: str = "application/octet-stream") -> Action:
    """Send the whole body."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


def chunked(body: bytes) -> Action:
    """Send the body without telling its length."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    return act


def cut_off(body: bytes, length: int) -> Action:
    """Promise `length` bytes, send `body`, and hang up."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return act


def cut_off_chunk(body: bytes) -> Action:
    """Begin a chunk longer than `body` and hang up."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s" % (len(body) + 100, body))
        handler.close_connection = True

    return act


def status(code: int) -> Action:
    """Answer with a status and a little text."""

    def act(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "4")
        handler.end_headers()
        handler.wfile.write(b"text")

    return act


def redirect(location: str) -> Action:
    """Send the client elsewhere."""

    def act(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def hang_up(handler: Handler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def with_login(user_and_password: str, then: Action) -> Action:
    """Ask for basic authentication (given base64-coded)."""

    def act(handler: Handler) -> None:
        given = handler.headers.get("Authorization")
        (then if given == f"Basic {user_and_password}" else status(401))(handler)

    return act
