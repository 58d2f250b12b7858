"""The admin and the metrics port of a server with several workers: one answer out of theirs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.admin_app import MAX_FEEDBACK_BYTES
from penstock_runtime.server.forward.http_client import BrokenExchange, Connection, Response
from penstock_runtime.server.http import (
    Disconnected,
    Header,
    Receive,
    Scope,
    Send,
    answer_error,
    not_found,
    read_body,
    require_method,
)
from penstock_runtime.server.metrics_app import TEXT
from penstock_runtime.server.workers.totals import add_up

# A load of a model may take as long as it takes; numbers may not.
_NUMBERS_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64 * 2**20
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"upgrade", b"host"))
# What one worker answers for all: the ledger of labels is its, and what is only read is the same everywhere.
_FEEDBACK_PATH = re.compile(r"/v2/models/[^/]+/feedback")
_READING_PATHS = frozenset(("/v2/repository/index",))


class MetricsApp:
    """GET /metrics: the sum over all workers, or an error. A sum without one of them would look like a restart."""

    def __init__(self, ports: Sequence[int]) -> None:
        """`ports` of loopback: those of the workers' own metrics."""
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if scope["path"] != "/metrics":
                raise not_found(scope["path"])
            require_method(scope, "GET", "HEAD")
            request = b"GET /metrics HTTP/1.1\r\nhost: worker\r\n\r\n"
            async with asyncio.timeout(_NUMBERS_SECONDS):
                told = await asyncio.gather(*(ask(port, request) for port in self._ports))
        except (OSError, BrokenExchange, TimeoutError):
            await answer_error(send, Unavailable("a worker does not tell its numbers"))
        except ProtocolError as error:
            await answer_error(send, error)
        else:
            body = add_up(response.body.decode() for response in told)
            await relay(send, Response(200, [TEXT], body))


class AdminApp:
    """Hands each request to one worker where one can answer for all, else to all of them, one after the other."""

    def __init__(self, ports: Sequence[int]) -> None:
        """`ports` of loopback: the workers' own admin ports."""
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            headers = dict(scope["headers"])
            body = await read_body({**headers, b"content-encoding": b"identity"}, receive, MAX_FEEDBACK_BYTES)
            await relay(send, await self._ask(scope, body))
        except Disconnected:
            return
        except (OSError, BrokenExchange):
            await answer_error(send, Unavailable("a worker does not answer"))
        except ProtocolError as error:
            await answer_error(send, error)

    async def _ask(self, scope: Scope, body: bytes) -> Response:
        path, method = scope["path"], scope["method"]
        request = _write(scope, body)
        first = await ask(self._ports[0], request, head=method == "HEAD")
        reads = method in ("GET", "HEAD") or path in _READING_PATHS or _FEEDBACK_PATH.fullmatch(path)
        if reads or first.status >= 400:
            return first
        for number, port in enumerate(self._ports[1:], 2):
            response = await ask(port, request)
            if response.status != first.status:
                raise ProtocolError(
                    f"worker {number} of {len(self._ports)} answered {response.status} where others answered "
                    f"{first.status}: {response.body[:500].decode(errors='replace')}; repeat it, or restart the server",
                    status=500,
                )
        return first


async def ask(port: int, request: bytes, *, head: bool = False) -> Response:
    """Return the answer of the worker at `port`; raises OSError or BrokenExchange. `head`: it comes without a body."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(_MAX_ANSWER_BYTES, lambda _: None), "127.0.0.1", port
    )
    try:
        if head:
            request = request.replace(b"HEAD", b"GET", 1)
        response = await connection.exchange((request,))
        return response._replace(body=b"") if head else response
    finally:
        connection.close()


async def relay(send: Send, response: Response) -> None:
    """Send `response` on."""
    headers: list[Header] = [(name, value) for name, value in response.headers if name not in _HOP_BY_HOP]
    headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _write(scope: Scope, body: bytes) -> bytes:
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    lines = [b"%b %b%b HTTP/1.1" % (scope["method"].encode(), scope["raw_path"], query), b"host: worker"]
    lines += [b"%b: %b" % header for header in scope["headers"] if header[0] not in _HOP_BY_HOP]
    lines += [b"content-length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)
