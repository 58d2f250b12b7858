"""What a document says of a port that asks for tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from penstock_runtime.server.openapi.parts import Part, Paths, refused

_METHODS = frozenset({"get", "head", "post", "put", "delete"})
BEARER = "bearer"
BASIC = "basic"
SCHEMES: dict[str, Part] = {
    BEARER: {"type": "http", "scheme": "bearer", "description": "A token of the file that the server was given."},
    BASIC: {"type": "http", "scheme": "basic", "description": "For browsers: any user, the token as password."},
}


class Guarded(NamedTuple):
    """A port asks for tokens, but at `open_paths`; at `pages` it takes one as a password, too."""

    open_paths: Collection[str] = ()
    pages: Collection[str] = ()


def behind_tokens(paths: Paths, guarded: Guarded) -> dict[str, Part]:
    """Return `paths` as they are behind tokens: with a 401."""
    return {
        path: {
            key: _guarded(each, key, path in guarded.pages)
            if key in _METHODS and path not in guarded.open_paths
            else each
            for key, each in item.items()
        }
        for path, item in paths.items()
    }


def _guarded(operation: Part, method: str, page: bool) -> Part:
    security: list[dict[str, Any]] = [{BEARER: []}, {BASIC: []}] if page else [{BEARER: []}]
    return {**operation, "security": security, "responses": {**operation["responses"], "401": refused(401, method)}}
