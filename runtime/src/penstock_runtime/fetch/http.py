"""Models behind http(s): one file a URI."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from penstock_runtime.fetch.errors import FetchError, TransientError
from penstock_runtime.fetch.source import Listing, RemoteFile, Stream
from penstock_runtime.fetch.uri import ModelUri

# What is left as it stands: a URI may be quoted already, or not.
_URL_CHARS = "%/:?@!$&'()*+,;=~-._"
CHUNK = 1 << 20
# Seconds without a byte after which a connection counts as dead.
TIMEOUT = 30.0


class HttpSource:
    """One file by GET. Credentials: user info in the URI, or a mounted token or user and password."""

    def __init__(self, uri: ModelUri, credentials: Mapping[str, str]) -> None:
        """Prepare the request; nothing is sent yet."""
        self.name = uri.shown
        parts = urlsplit(uri.text)
        path, query = quote(parts.path or "/", _URL_CHARS), quote(parts.query, _URL_CHARS)
        self._url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, ""))
        self._file = uri.path.rpartition("/")[2] or "model"
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "penstock-runtime"}
        authorization = _authorization(parts.username, parts.password, credentials)
        self._opener = urllib.request.build_opener(_SameHostRedirects)
        self._authorization = authorization

    def list(self) -> Listing:
        """Return the one file; whether it exists shows when it is opened."""
        return Listing((RemoteFile(unquote(self._file), None),), single=True)

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[Stream]:
        """GET the file; raises FetchError by status, TransientError for what may pass."""
        request = urllib.request.Request(self._url, headers=self._headers)  # noqa: S310 - http(s) by construction
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        with self._failures(), self._opener.open(request, timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == "text/html":
                raise FetchError(
                    "InvalidModel", f"{self.name} answers with a web page, not a model; is it a login page?"
                )
            length = response.headers.get("Content-Length")
            size = int(length) if length is not None and length.isdecimal() else None
            yield Stream(size, _chunks(response))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except urllib.error.HTTPError as error:
            with error:
                raise self._by_status(error.code) from None
        except http.client.IncompleteRead:
            raise TransientError(f"{self.name}: the connection ended before the file did") from None
        except urllib.error.URLError as error:
            raise TransientError(f"{self.name} cannot be reached: {_why(error.reason)}") from None
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            raise TransientError(f"{self.name} cannot be read: {_why(error)}") from None

    def _by_status(self, status: int) -> FetchError:
        match status:
            case 404 | 410:
                return FetchError("ModelNotFound", f"{self.name} does not exist (HTTP {status})")
            case 401 | 403 | 407:
                return FetchError("AccessDenied", f"{self.name} refuses access (HTTP {status}); check the credentials")
            case 408 | 425 | 429:
                return TransientError(f"{self.name} asks to try later (HTTP {status})")
        if status >= 500:
            return TransientError(f"{self.name} fails (HTTP {status})")
        return FetchError("SourceUnreachable", f"{self.name} cannot be fetched (HTTP {status})")


class _SameHostRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, and never from https down to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request; the Authorization header is unredirected and so stays behind."""
        target = urlsplit(newurl)
        if target.scheme not in ("http", "https") or (req.type == "https" and target.scheme == "http"):
            raise FetchError("SourceUnreachable", "the server redirects to an address that is not secure")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if following is not None and target.netloc == urlsplit(req.full_url).netloc:
            authorization = req.unredirected_hdrs.get("Authorization")
            if authorization:
                following.add_unredirected_header("Authorization", authorization)
        return following


def _chunks(response: Any) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk


def _authorization(user: str | None, password: str | None, credentials: Mapping[str, str]) -> str | None:
    if token := credentials.get("HTTP_BEARER_TOKEN"):
        return f"Bearer {token}"
    name = unquote(user) if user else credentials.get("HTTP_USERNAME")
    if not name:
        return None
    secret = unquote(password or "") if user else credentials.get("HTTP_PASSWORD", "")
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _why(error: object) -> str:
    """Return a short cause; an OSError's text names hosts and errno, never the request's headers or query."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
