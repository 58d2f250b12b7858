"""The `Inspector` port: a model pod's own description of its model, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from penstock.ports import PodTarget, ProbeFailed

from .http import NoAnswer, Request, exchange, host

PORT = "http"
_MAX_BODY = 1 << 20


class HttpInspector:
    """Asks a pod directly, past any Service: it must be this pod that answers."""

    def __init__(self, session: aiohttp.ClientSession, *, seconds: float = 5.0) -> None:
        self._session = session
        self._seconds = seconds

    async def metadata(self, pod: PodTarget, model: str) -> Mapping[str, Any]:
        """See `Inspector.metadata`."""
        if not pod.ip or PORT not in pod.ports:
            raise ProbeFailed(f"pod {pod.name} has no address or no port named {PORT} yet")
        url = f"http://{host(pod.ip)}:{pod.ports[PORT]}/v2/models/{quote(model, safe='')}"
        request = Request(url, {"Accept": "application/json"}, None, self._seconds, _MAX_BODY)
        try:
            answer = await exchange(self._session, request)
            metadata = json.loads(answer.body) if answer.status == 200 else None
        except NoAnswer as exc:
            raise ProbeFailed(f"pod {pod.name}, {url}: {exc}") from exc
        except ValueError as exc:
            raise ProbeFailed(f"pod {pod.name}, {url}: the answer is not JSON: {exc}") from exc
        if not isinstance(metadata, dict):
            raise ProbeFailed(f"pod {pod.name}, {url}: answered {answer.status}, not with a model's metadata")
        return metadata
