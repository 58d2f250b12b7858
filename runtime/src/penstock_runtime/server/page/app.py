"""The page, what feeds it, and requests made from it, before the rest of the admin port."""

from __future__ import annotations

import re
import time

import orjson

from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError
from penstock_runtime.server.http import (
    App,
    Disconnected,
    Header,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    read_body,
    require_method,
    unexpected,
)
from penstock_runtime.server.page.document import POLICY, document
from penstock_runtime.server.page.example import pretty
from penstock_runtime.server.page.state import state
from penstock_runtime.server.repository.repository import Repository

# What a browser asks for; paths that end in / stand for all below them.
PATHS = ("/", "/state", "/try/")
MAX_REQUEST_BYTES = 16 * 2**20
_TRY_PATH = re.compile(r"/try/([^/]+)(?:/versions/([^/]+))?")
_HTML: Header = (b"content-type", b"text/html; charset=utf-8")
_HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class PageApp:
    """GET /, GET /state, POST /try/{model} and /try/{model}/versions/{version}; all else goes to `rest`.

    A request made by /try is answered as the data port would, but counts nowhere: it gets no prediction id, waits
    in no line and is in no metric, so that playing with a model never moves a gate.
    """

    def __init__(self, repository: Repository, revision: str, rest: App) -> None:
        """Show the models of `repository`; its uptime begins now."""
        self._repository = repository
        self._revision = revision
        self._rest = rest
        self._began = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path not in PATHS and not path.startswith("/try/"):
            await self._rest(scope, receive, send)
            return
        try:
            body, kind = await self._answer(path, scope, receive)
        except Disconnected:
            return
        except ProtocolError as error:
            await answer_error(send, error, _HEADERS)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            await answer_error(send, unexpected(error), _HEADERS)
        else:
            await answer(send, 200, body, _HEADERS, *kind)

    async def _answer(self, path: str, scope: Scope, receive: Receive) -> tuple[bytes, tuple[Header, ...]]:
        if path == "/":
            require_method(scope, "GET", "HEAD")
            return document(self._repository, self._revision), (_HTML,)
        if path == "/state":
            require_method(scope, "GET", "HEAD")
            return orjson.dumps(state(self._repository, time.monotonic() - self._began)), ()
        match = _TRY_PATH.fullmatch(path)
        if match is None:
            raise ProtocolError("write /try/{model} or /try/{model}/versions/{version}", status=404)
        require_method(scope, "POST")
        headers = dict(scope["headers"])
        _refuse_other_sites(headers)
        serving = self._repository.find(*match.groups())
        answered = await serving.try_out(await read_body(headers, receive, MAX_REQUEST_BYTES))
        return pretty(orjson.loads(answered)).encode(), ()


def _refuse_other_sites(headers: dict[bytes, bytes]) -> None:
    """A page of another site must not run models by its visitors' browsers, which may know the token."""
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        raise ProtocolError("requests from pages of other sites are refused", status=403)
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        raise InvalidRequest("the header Content-Type must say application/json")
