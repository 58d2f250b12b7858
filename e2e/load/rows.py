"""Held-out rows as ready-made HTTP requests: encoded once, so that sending one costs next to nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: an address, and the Host header that a gateway routes by."""

    address: str
    port: int
    host: str

    @classmethod
    def parse(cls, url: str, host: str = "") -> Endpoint:
        """The endpoint of `http://address:port`; `host` is the Host header, the address itself if empty.

        Raises ValueError for a URL that is not plain http.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no URL such as http://127.0.0.1:30080")
        port = parts.port or 80
        return cls(parts.hostname, port, host or f"{parts.hostname}:{port}")

    def post(self, path: str, body: bytes, *, close: bool = False) -> bytes:
        """A whole POST request with a JSON body; `close` asks the server to end the connection after it."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Row:
    """One request and the label that is right for it."""

    request: bytes
    label: int


def prepare(endpoint: Endpoint, model: str, data: Path, input_name: str = "x") -> tuple[Row, ...]:
    """The rows of an .npz file (`rows` [n, features], `labels` [n]) as Open Inference Protocol requests.

    Raises ValueError where the file holds something else.
    """
    with np.load(data) as file:
        if not {"rows", "labels"} <= set(file.files):
            raise ValueError(f"{data} holds {', '.join(file.files)}; it must hold 'rows' and 'labels'")
        rows, labels = file["rows"], file["labels"]
    path = f"/v2/models/{model}/infer"
    return tuple(
        Row(endpoint.post(path, _body(row.tolist(), input_name)), int(label))
        for row, label in zip(rows, labels, strict=True)
    )


def _body(values: list[float], input_name: str) -> bytes:
    short = [int(value) if value.is_integer() else value for value in values]
    tensor = {"name": input_name, "shape": [1, len(values)], "datatype": "FP32", "data": short}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}, separators=(",", ":")).encode()
