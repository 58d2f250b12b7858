"""Plain JSON requests to the API server, for tests that look at its answers rather than at our adapter."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Refused(Exception):  # noqa: N818 - the test's own word
    """The API server said no; the message is its own, as kubectl would print it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Rest:
    """An administrator's requests. `warnings` are those of the latest answer, as kubectl would print them."""

    url: str
    token: str
    ca: Path
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    def get(self, path: str, accept: str = "application/json") -> Json:
        """The object or list at a path."""
        return self._call("GET", path, None, {"Accept": accept})

    def create(self, path: str, body: Json, validation: str = "Strict", dry_run: bool = False) -> Json:
        """POST to a collection, refusing unknown fields unless told otherwise."""
        query = f"?fieldValidation={validation}" + ("&dryRun=All" if dry_run else "")
        return self._call("POST", path + query, body)

    def patch(self, path: str, body: Json, kind: str = MERGE_PATCH, manager: str = "test") -> Json:
        """PATCH an object or one of its subresources, refusing unknown fields; an apply is forced."""
        query = f"?fieldValidation=Strict&fieldManager={manager}" + ("&force=true" if kind == APPLY_PATCH else "")
        return self._call("PATCH", path + query, body, {"Content-Type": kind})

    def _call(self, method: str, path: str, body: Json | None, headers: Mapping[str, str] | None = None) -> Json:
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as response:  # noqa: S310
                self.warnings[:] = map(_warning, response.headers.get_all("Warning") or ())
                answer: Json = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, _message(error.read())) from None


def _warning(header: str) -> str:
    """The text of a `299 - "..."` header."""
    return re.sub(r'^299 - "(.*)"$', r"\1", header).replace('\\"', '"')


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError):
        return body.decode(errors="replace")
