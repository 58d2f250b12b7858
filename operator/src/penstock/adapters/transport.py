"""Requests to the API server: URLs, time limits, retries, the pace of writes, and what its refusals mean.

Every write of this operator is fenced by uid, resourceVersion or absence. So all of them may be retried after
a lost answer: at worst the second try is a Conflict, and the reconcile looks again.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from penstock.core.objects import SECRET, Kind, Object
from penstock.ports import ClusterError, Conflict, Invalid

from .bucket import TokenBucket

log = logging.getLogger(__name__)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_RETRIED = frozenset({429, 500, 502, 503, 504})
_INVALID = frozenset({400, 403, 405, 413, 415, 422})
_MAX_MESSAGE = 1000
_MAX_WARNINGS = 200


class Unreachable(ClusterError):  # noqa: N818 - as in ports
    """No answer came: no connection, a broken one, or none in time."""


class NotFound(ClusterError):  # noqa: N818
    """404: no such object, or no such type or namespace."""


class Gone(ClusterError):  # noqa: N818
    """410: what was asked for is too old to be continued."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Send(Protocol):
    """One HTTP exchange with the API server, authenticated. Unreachable where no answer came."""

    async def __call__(self, method: str, path: str, headers: dict[str, str], body: Any) -> Response:
        """`path` with its query; `body` is JSON data or None."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    verb: str
    """As RBAC writes it: get, list, create, update, patch, delete."""
    kind: Kind
    namespace: str
    name: str = ""
    subresource: str = ""
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    content_type: str = JSON

    @property
    def path(self) -> str:
        """The path and query of the URL."""
        kind = self.kind
        parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
        if kind.namespaced and self.namespace:
            parts += ["namespaces", self.namespace]
        parts += [part for part in (kind.plural, self.name, self.subresource) if part]
        path = "/" + "/".join(quote(part, safe="") for part in parts)
        return f"{path}?{urlencode(self.query)}" if self.query else path

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name, self.subresource) if part)
        return f"{self.verb} {self.kind.kind} {where}".rstrip()


Observe = Callable[[str, str, str, float], None]
"""Called once per exchange with verb, kind, code (`error` for no answer) and seconds."""

_METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may take altogether, and how often it is tried."""

    attempts: int = 4
    total: float = 30.0
    """Seconds after which no further try is started."""
    first_delay: float = 0.2
    max_retry_after: float = 10.0


class Api:
    """The API server as raw JSON."""

    def __init__(
        self,
        send: Send,
        *,
        writes: TokenBucket | None = None,
        patience: Patience = Patience(),
        observe: Observe | None = None,
        on_date: Callable[[str], None] | None = None,
    ) -> None:
        self._send = send
        self._writes = writes
        self._patience = patience
        self._observe = observe
        self._on_date = on_date
        self._warned: set[str] = set()

    async def request(self, call: Call) -> Object:
        """Make the request, patiently. NotFound, Conflict, Invalid or ClusterError by what was answered."""
        if self._writes is not None and call.verb not in ("get", "list"):
            await asyncio.sleep(self._writes.reserve())
        patience = self._patience
        started = time.monotonic()
        for attempt in range(1, patience.attempts + 1):
            error: ClusterError
            wait = patience.first_delay * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311
            try:
                response = await self._exchange(call)
            except Unreachable as exc:
                error = Unreachable(f"{call}: {exc}")
            else:
                if response.status < 300:
                    return _parsed(call, response)
                error = refusal(call, response)
                if response.status not in _RETRIED:
                    raise error
                wait = max(wait, min(_retry_after(response.headers), patience.max_retry_after))
            late = time.monotonic() - started + wait > patience.total
            if attempt == patience.attempts or late:
                raise error
            log.debug("trying again in %.1f s: %s", wait, error)
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _exchange(self, call: Call) -> Response:
        headers = {"Accept": JSON, "Content-Type": call.content_type}
        started = time.monotonic()
        code = "error"
        try:
            response = await self._send(_METHODS[call.verb], call.path, headers, call.body)
            code = str(response.status)
        finally:
            if self._observe is not None:
                self._observe(call.verb, call.kind.kind, code, time.monotonic() - started)
        if self._on_date is not None and "Date" in response.headers:
            self._on_date(response.headers["Date"])
        self._note_warning(call, response.headers.get("Warning", ""))
        return response

    def _note_warning(self, call: Call, warning: str) -> None:
        if warning and warning not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(warning)
            log.warning("the API server warns about %s: %s", call, warning)


def refusal(call: Call, response: Response) -> ClusterError:
    """The error that a status of 300 or more stands for."""
    message = f"{call}: {response.status} {_message(call, response)}".rstrip()
    match response.status:
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return Gone(message)
        case 422 if _has_cause(response, "field", "metadata.uid"):
            # A fence on the uid of an object that has been made anew is refused as a change of the uid.
            return Conflict(message)
        case 403 if _has_cause(response, "reason", "NamespaceTerminating"):
            # Our object goes with its namespace, in a moment.
            return Conflict(message)
        case status if status in _INVALID:
            return Invalid(message)
        case _:
            return ClusterError(message)


def _message(call: Call, response: Response) -> str:
    status = _status(response)
    if call.kind == SECRET and response.status in (400, 422):
        # The server quotes values that it does not like.
        return str(status.get("reason", ""))
    text = status.get("message") or response.body[:_MAX_MESSAGE].decode(errors="replace").strip()
    return str(text)[:_MAX_MESSAGE]


def _has_cause(response: Response, name: str, value: str) -> bool:
    details = _status(response).get("details") or {}
    return any(cause.get(name) == value for cause in details.get("causes") or [])


def _status(response: Response) -> Mapping[str, Any]:
    try:
        status = json.loads(response.body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _parsed(call: Call, response: Response) -> Object:
    try:
        obj = json.loads(response.body)
    except ValueError:
        obj = None
    if not isinstance(obj, dict):
        raise ClusterError(f"{call}: the API server answered {response.status} with something not a JSON object")
    return obj


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the answer's Retry-After, which is a number or a date; 0 for none."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
