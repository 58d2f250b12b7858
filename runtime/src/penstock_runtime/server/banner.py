"""What a person who starts a server at a terminal is told once it is ready."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

import orjson

from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.protocol.synthetic import synthetic_request
from penstock_runtime.terminal import printable

# A longer request is not typed, nor looked at.
MAX_BODY = 1500
_TIMES = "'%{http_code}, %{size_download} bytes in %{time_total} s\\n'"


def banner(host: str | None, ports: Mapping[str, int], models: Iterable[tuple[str, ModelSchema]]) -> Iterator[str]:
    """Yield the lines: where the models are, how to ask and measure each, and how to stop the server."""
    address = f"http://{_reachable(host)}"
    base = f"{address}:{ports['http']}"
    everywhere = "" if host else " (and at this computer's other addresses; --host 127.0.0.1 would keep it to itself)"
    yield ""
    for name, schema in models:
        yield f"{printable(name)} is ready at {base}/v2/models/{quote(name, safe='')}{everywhere}"
        yield f"  {curl_line(base, name, schema)}"
    yield ""
    yield f"  Measure:  penstock-runtime bench {base}"
    yield f"  Metrics:  {address}:{ports['metrics']}/metrics"
    yield "  Stop:     Ctrl-C"
    yield ""


def curl_line(base: str, name: str, schema: ModelSchema) -> str:
    """Return a command for a shell that asks the model for the answer to a row of zeros, of its own schema.

    A large tensor is piped in binary form; where even that cannot be written down in a line, the command asks for the
    model's metadata.
    """
    url = f"{base}/v2/models/{quote(name, safe='')}"
    body, header = synthetic_request(schema) if _few(schema) else (b"", 0)
    if header is None:
        text = orjson.dumps({"inputs": orjson.loads(body)["inputs"]}).decode()
        if len(text) <= MAX_BODY and all(spec.json_types for spec in schema.outputs):
            return f"curl {url}/infer -d {shlex.quote(text)}"
    size = _raw_size(schema)
    if size is None:
        return f"curl {url}"
    return (
        f"head -c {size} /dev/zero | curl -s -o answer.bin -w {_TIMES} -H 'Inference-Header-Content-Length: 0' "
        f"--data-binary @- {url}/infer"
    )


def _few(schema: ModelSchema) -> bool:
    """Return whether the row is short enough for JSON: else it is not even made."""
    return sum(_elements(spec.shape) for spec in schema.inputs) <= MAX_BODY


def _raw_size(schema: ModelSchema) -> int | None:
    """Return the bytes of a request without JSON, None where the protocol has none for the model."""
    if len(schema.inputs) != 1:
        return None
    [spec] = schema.inputs
    if spec.shape is None or spec.datatype == "BYTES" or spec.shape.count(-1) > 2:
        return None
    return _elements(spec.shape) * spec.dtype.itemsize


def _elements(shape: tuple[int, ...] | None) -> int:
    return math.prod(1 if dim == -1 else dim for dim in shape or ())


def _reachable(host: str | None) -> str:
    """Return what to call a server that listens on `host` from this computer."""
    address = {None: "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{address}]" if address and ":" in address else str(address)
