"""The server that is measured: its address, and what it tells of the model."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import orjson

from penstock_runtime.bench.errors import BenchError

MAX_ANSWER_BYTES = 16 * 2**20
_SECONDS = 10.0
_MODELS = "/v2/models/"


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address, the path before /v2, and the model (empty: not known yet)."""

    secure: bool
    host: str
    port: int
    prefix: str
    model: str = ""
    version: str = ""

    @property
    def path(self) -> str:
        """The model's path."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"{self.prefix}{_MODELS}{quote(self.model, safe='')}{version}"

    @property
    def address(self) -> str:
        """Host and port as they stand in a URL and in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http{'s' if self.secure else ''}://{self.address}{self.prefix}"


def read_url(text: str, model: str | None) -> Target:
    """Return the target of a URL, which may be that of a model or of its infer path; raises BenchError.

    `model`, if given, counts more than the one in the URL.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BenchError(f"{text} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BenchError(f"{text} is no URL of a server; give one such as http://localhost:8080")
    if parts.username is not None or parts.query or parts.fragment:
        raise BenchError("credentials, a query and a fragment cannot be part of the URL")
    prefix, found, rest = parts.path.partition(_MODELS)
    if not found:
        prefix, rest = parts.path.removesuffix("/").removesuffix("/v2"), ""
    names = [unquote(part) for part in rest.split("/")]
    version = names[2] if len(names) > 2 and names[1] == "versions" else ""
    secure = parts.scheme == "https"
    port = port if port is not None else 443 if secure else 80
    return Target(secure, host, port, prefix.rstrip("/"), model or names[0], version if not model else "")


def ask(target: Target, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body of one request, which is never redirected; raises BenchError if there is no answer."""
    connection: http.client.HTTPConnection
    if target.secure:
        connection = http.client.HTTPSConnection(
            target.host, target.port, timeout=_SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=_SECONDS)
    try:
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"no answer from {target.url}: {str(error) or type(error).__name__}") from None
    finally:
        connection.close()


def find_model(target: Target) -> Target:
    """Return the target with a model: the one asked for, or the only one that the server has; raises BenchError."""
    if target.model:
        return target
    names = _names_of(target, "GET", "/v2/models/stats", None, "model_stats")
    if not names:
        names = _names_of(target, "POST", "/v2/repository/index", b'{"ready":true}', None)
    if len(names) == 1:
        return replace(target, model=names[0])
    if not names:
        raise BenchError(f"{target.url} does not tell which models it has; name one with --model")
    raise BenchError(f"{target.url} has several models ({', '.join(names[:10])}); name one with --model")


def fetch_metadata(target: Target) -> bytes:
    """Return the model's metadata; raises BenchError with what the server said."""
    status, body = ask(target, "GET", target.path)
    if status != 200:
        raise BenchError(f"{target.url} answers {status} when asked for model '{target.model}'{_said(body)}")
    return body


def fetch_statistics(target: Target) -> dict[str, tuple[int, int]] | None:
    """Return count and nanoseconds of each stage since the server began; None where there is no such extension."""
    try:
        status, body = ask(target, "GET", f"{target.path}/stats")
        stages = orjson.loads(body)["model_stats"][0]["inference_stats"] if status == 200 else {}
        return {name: (int(stages[name]["count"]), int(stages[name]["ns"])) for name in ("queue", "compute_infer")}
    except (BenchError, LookupError, TypeError, ValueError):
        return None


def _names_of(target: Target, method: str, path: str, body: bytes | None, key: str | None) -> list[str]:
    status, answer = ask(target, method, target.prefix + path, body)
    try:
        message: Any = orjson.loads(answer) if status == 200 else []
        entries = message[key] if key else message
        return sorted({entry["name"] for entry in entries})
    except (LookupError, TypeError, ValueError):
        return []


def _said(body: bytes) -> str:
    try:
        return f": {orjson.loads(body)['error']}"[:500]
    except (LookupError, TypeError, ValueError):
        return ""
