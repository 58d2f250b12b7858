"""Model URIs: understood, and shown without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from penstock_runtime.fetch.errors import FetchError

SCHEMES = ("http", "https", "s3", "configmap", "pvc")


@dataclass(frozen=True, slots=True)
class ModelUri:
    """A parsed URI: `place` is the host, bucket, ConfigMap or claim; `path` has no leading slash."""

    scheme: str
    place: str
    path: str
    text: str

    @property
    def shown(self) -> str:
        """The URI for messages: no user info, query or fragment, where credentials hide."""
        parts = urlsplit(self.text)
        return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_uri(text: str) -> ModelUri:
    """Return the URI; raises FetchError UnsupportedSource if its form or scheme is not known."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise FetchError("UnsupportedSource", "the model's uri cannot be read; see the reference") from None
    scheme = parts.scheme.lower()
    known = ", ".join(f"{name}://" for name in SCHEMES)
    if scheme not in SCHEMES:
        raise FetchError("UnsupportedSource", f"uri scheme '{scheme[:20]}' is not supported; use {known}")
    place = parts.netloc.rpartition("@")[2]
    path = parts.path.lstrip("/")
    if not place:
        raise FetchError("UnsupportedSource", f"the {scheme} uri lacks its first part ({scheme}://<here>/...)")
    if scheme in ("configmap", "pvc", "s3"):
        path = unquote(path)
    if scheme not in ("http", "https") and ".." in path.split("/"):
        raise FetchError("UnsupportedSource", f"the path in {scheme}://{place} must not contain '..'")
    return ModelUri(scheme, place, path, text)
