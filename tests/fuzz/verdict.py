"""What an answer must be like: 200 and whole, or a 4xx with a reason."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

REFUSALS = frozenset({400, 403, 404, 405, 408, 413, 415, 429})


class Wrong(AssertionError):  # noqa: N818 - reads as what it is in `raise`
    """The server did what it must not do."""


def check(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, method: str) -> dict[bytes, bytes]:
    """Raise Wrong unless the answer is as the protocol has it; return its headers."""
    named = dict(headers)
    if len(named) != len(headers):
        raise Wrong(f"a header is there twice: {headers}")
    if method != "HEAD" and int(named[b"content-length"]) != len(body):
        raise Wrong(f"content-length {named[b'content-length']!r} of {len(body)} bytes")
    if status in REFUSALS:
        if method != "HEAD":
            _check_refusal(status, named, body)
    elif status == 200:
        if method != "HEAD":
            _check_answer(named, body)
    else:
        raise Wrong(f"status {status}: {body[:200]!r}")
    return named


def _check_refusal(status: int, headers: Mapping[bytes, bytes], body: bytes) -> None:
    if headers[b"content-type"] != b"application/json":
        raise Wrong(f"an error of type {headers[b'content-type']!r}")
    message = orjson.loads(body)
    if list(message) != ["error"] or type(message["error"]) is not str or not message["error"]:
        raise Wrong(f"an error that does not say what is wrong: {body!r}")
    for needed, name in ((405, b"allow"), (415, b"accept-encoding"), (429, b"retry-after")):
        if (status == needed) != (name in headers):
            raise Wrong(f"{status} with the headers {headers}")


def _check_answer(headers: Mapping[bytes, bytes], body: bytes) -> None:
    coding = headers.get(b"content-encoding")
    if coding is not None:
        body = gzip.decompress(body) if coding == b"gzip" else zlib.decompress(body)
    length = headers.get(b"inference-header-content-length")
    if (length is None) != (headers[b"content-type"] == b"application/json"):
        raise Wrong(f"type {headers[b'content-type']!r} with a JSON part of {length!r}")
    message = orjson.loads(body if length is None else body[: int(length)])
    if type(message) is dict and "model_name" in message:
        _check_outputs(message, 0 if length is None else len(body) - int(length))
        if not (headers.get(b"penstock-prediction-id") and b"penstock-revision" in headers):
            raise Wrong(f"an inference without id or revision: {headers}")


def _check_outputs(message: dict[str, Any], surplus: int) -> None:
    for output in message["outputs"]:
        count = 1
        for dim in output["shape"]:
            count *= dim
        if "data" in output:
            if len(output["data"]) != count:
                raise Wrong(f"{len(output['data'])} elements in the shape {output['shape']}")
        else:
            surplus -= output["parameters"]["binary_data_size"]
    if surplus:
        raise Wrong(f"{surplus} bytes more than the outputs take")
