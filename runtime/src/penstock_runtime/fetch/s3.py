"""Models in S3-compatible stores: an object, or all objects below a prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from penstock_runtime.fetch.errors import FetchError, TransientError
from penstock_runtime.fetch.source import Listing, RemoteFile, Stream
from penstock_runtime.fetch.uri import ModelUri

if TYPE_CHECKING:  # obstore has these in its stubs alone
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

CHUNK = 1 << 20
_AMBIENT = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")  # fmt: skip


class S3Source:
    """A bucket's objects. Without credentials (mounted, or in the environment) requests are not signed."""

    def __init__(self, uri: ModelUri, credentials: Mapping[str, str], store: ObjectStore | None = None) -> None:
        """Prepare the client, or take `store` as the bucket; nothing is sent yet."""
        self.name = uri.shown
        self._bucket = uri.place
        self._key = uri.path
        self._root = uri.path
        self._store = store if store is not None else _connect(uri.place, credentials)

    def list(self) -> Listing:
        """Return the object named by the URI, else all below it as a folder."""
        if self._key and not self._key.endswith("/"):
            with self._failures():
                try:
                    head = obstore.head(self._store, self._key)
                except FileNotFoundError:
                    head = None
            if head is not None:
                name = self._key.rpartition("/")[2]
                self._root = self._key[: -len(name)]
                return Listing((RemoteFile(name, head["size"]),), single=True)
        return self._list_folder()

    def _list_folder(self) -> Listing:
        root = self._key.rstrip("/") + "/" if self._key else ""
        self._root = root
        files: list[RemoteFile] = []
        with self._failures():
            for page in obstore.list(self._store, prefix=root or None):
                for item in page:
                    path = item["path"][len(root) :]
                    if path and not path.endswith("/"):
                        files.append(RemoteFile(path, item["size"]))
        # Consoles make "folders" as empty objects, which are listed as files of the folder's name.
        folders = {path.rpartition("/")[0] for path in (file.path for file in files)}
        kept = tuple(file for file in files if file.size or not _is_folder(file.path, folders))
        if not kept:
            raise self._missing()
        return Listing(kept, single=False)

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[Stream]:
        """GET the object."""
        with self._failures():
            result = obstore.get(self._store, self._root + file.path)
            yield Stream(result.meta["size"], (memoryview(part) for part in result.stream(CHUNK)))

    def _missing(self) -> FetchError:
        return FetchError("ModelNotFound", f"{self.name}: there is no such object, nor any below it")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the store's errors into ours; its texts hold hosts and even keys, so stay here."""
        try:
            yield
        except FileNotFoundError:
            raise self._missing() from None
        except (PermissionDeniedError, UnauthenticatedError):
            raise FetchError(
                "AccessDenied",
                f"{self.name}: the store refuses access; check the keys and the bucket's policy",
            ) from None
        except BaseError as error:
            raise self._by_text(str(error)) from None

    def _by_text(self, text: str) -> FetchError:
        if "NoSuchBucket" in text:
            return FetchError("ModelNotFound", f"{self.name}: there is no bucket '{self._bucket}'")
        if "status: 403" in text or "status: 401" in text or "InvalidAccessKeyId" in text:
            return FetchError("AccessDenied", f"{self.name}: the store refuses access; check the keys")
        if "timed out" in text or "operation timed" in text:
            return TransientError(f"{self.name}: the store did not answer in time")
        if "error sending request" in text or "connect" in text:
            return TransientError(f"{self.name}: the store cannot be reached; check AWS_ENDPOINT_URL")
        return TransientError(f"{self.name}: the store failed")


def _is_folder(path: str, folders: set[str]) -> bool:
    return any(folder == path or folder.startswith(f"{path}/") for folder in folders)


def _connect(bucket: str, credentials: Mapping[str, str]) -> S3Store:
    endpoint = credentials.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL")
    config: S3Config = {
        "region": credentials.get("AWS_REGION") or os.environ.get("AWS_REGION") or "us-east-1",
        "virtual_hosted_style_request": False,
    }
    if endpoint:
        config["endpoint"] = endpoint
    if "AWS_ACCESS_KEY_ID" in credentials:
        config["access_key_id"] = credentials["AWS_ACCESS_KEY_ID"]
        config["secret_access_key"] = credentials.get("AWS_SECRET_ACCESS_KEY", "")
        if "AWS_SESSION_TOKEN" in credentials:
            config["session_token"] = credentials["AWS_SESSION_TOKEN"]
    elif not any(name in os.environ for name in _AMBIENT):
        # Else the client would look for a cloud's metadata service, and wait for it in vain.
        config["skip_signature"] = True
    client: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        # For the whole object, which may be many gigabytes: a dead connection shows by read_timeout.
        "timeout": timedelta(hours=12),
    }
    # We try again ourselves, so that a failure is logged and the count is one for all sources.
    retry: RetryConfig = {"max_retries": 0}
    return S3Store(bucket, config=config, client_options=client, retry_config=retry)
