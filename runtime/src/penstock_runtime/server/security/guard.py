"""An app behind tokens."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.http import App, Receive, Scope, Send, answer_error
from penstock_runtime.server.security.tokens import Tokens

HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})


class Unauthorized(ProtocolError):  # noqa: N818
    """The 401: without a token, or with a wrong one (RFC 6750, section 3)."""

    status = 401

    def __init__(self, presented: bool, basic: bool) -> None:
        """`presented`: whether there was a token at all; `basic`: whether a browser may ask its user for it."""
        super().__init__("the token is not valid" if presented else "a token is needed: Authorization: Bearer <token>")
        challenge = b'Bearer realm="penstock"' + (b', error="invalid_token"' if presented else b"")
        self.headers = ((b"www-authenticate", challenge),)
        if basic:
            self.headers += ((b"www-authenticate", b'Basic realm="penstock: the token is the password"'),)


class Guard:
    """Lets requests through to `app` that bring a token, and those to paths that are open to all.

    What it refuses never reaches the app, and so is not counted among a model's outcomes: it says nothing about
    the model, and nobody without a token can move a gate.
    """

    def __init__(self, app: App, tokens: Tokens, open_paths: Iterable[str] = (), pages: tuple[str, ...] = ()) -> None:
        """`pages`: paths, or beginnings of them that end in /, for browsers: these send a token as a password."""
        self._app = app
        self._tokens = tokens
        self._open = frozenset(open_paths)
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path not in self._open:
            basic = any(path == page or (page != "/" and page[-1] == "/" and path.startswith(page))
                        for page in self._pages)  # fmt: skip
            presented = _read_token(scope, basic)
            if presented is None or not self._tokens.allow(presented):
                await answer_error(send, Unauthorized(presented is not None, basic))
                return
        await self._app(scope, receive, send)


def refusal(tokens: Tokens, authorization: bytes) -> Unauthorized | None:
    """Return why nobody is let in with that value of the header or metadata `authorization`, None if one is."""
    presented = _bearer(authorization)
    return None if presented is not None and tokens.allow(presented) else Unauthorized(presented is not None, False)


def _bearer(authorization: bytes) -> bytes | None:
    scheme, _, rest = authorization.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else None


def _read_token(scope: Scope, basic: bool) -> bytes | None:
    """Return the token that the request brings, be it right or wrong; None if it brings none."""
    value: bytes = dict(scope["headers"]).get(b"authorization", b"")
    scheme, _, rest = value.partition(b" ")
    if basic and scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return _bearer(value)
