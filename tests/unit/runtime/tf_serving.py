"""TensorFlow Serving's REST interface before real ONNX models, for tests.

Written from its documentation and source: paths, shapes of answers in row and column format, states, errors, bare NaN.
The real server is not to be had from a package index; what it adds lies behind these shapes.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/(\w+))?(?::(predict|classify|regress)|(/metadata))?")
_DTYPES = {"tensor(float)": "DT_FLOAT", "tensor(int64)": "DT_INT64", "tensor(string)": "DT_STRING"}


class Refused(Exception):  # noqa: N818
    """An answer with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TfServing:
    """Serves the model in `path` as "m", version 3 with the label "stable".

    `columns`: the names of its outputs, of those of the ONNX model; one of them leaves answers without names.
    `state` is what the status says; `requests` counts by method and path.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._session = ort.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
        self._columns = columns
        self.state = "AVAILABLE"
        self.requests: Counter[str] = Counter()
        self.predictions = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["content-length"])))

            def _answer(self, body: bytes) -> None:
                server.requests[f"{self.command} {self.path}"] += 1
                status = 200
                try:
                    document = server.answer(self.command, self.path, body)
                except Refused as error:
                    status, document = error.status, {"error": str(error)}
                raw = json.dumps(document, indent=4).encode()
                self.send_response_only(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        match = _PATH.fullmatch(path)
        if match is None:
            raise Refused(404, f"Malformed request: {method} {path}")
        name, version, label, verb, metadata = match.groups()
        if name != "m" or version not in (None, "3") or label not in (None, "stable"):
            raise Refused(404, f"Servable not found for request: Latest({name})")
        if (verb is None) != (method == "GET"):
            raise Refused(404, f"Malformed request: {method} {path}")
        if verb is None:
            return self._metadata() if metadata else self._status()
        try:
            document = json.loads(body)
        except ValueError:
            raise Refused(400, "JSON Parse error: Invalid value.") from None
        if verb == "predict":
            return self._predict(document)
        return {"results": self._classify(document) if verb == "classify" else self._regress(document)}

    def _status(self) -> dict[str, Any]:
        status = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": "3", "state": self.state, "status": status}]}

    def _metadata(self) -> dict[str, Any]:
        def described(tensors: list[Any]) -> dict[str, Any]:
            return {
                each.name: {
                    "dtype": _DTYPES[each.type],
                    "tensor_shape": {
                        "dim": [{"size": str(dim) if isinstance(dim, int) else "-1", "name": ""} for dim in each.shape],
                        "unknown_rank": False,
                    },
                    "name": f"{each.name}:0",
                }
                for each in tensors
            }

        outputs = [each for each in self._session.get_outputs() if each.name in self._columns]
        signature = {"inputs": described(self._session.get_inputs()), "outputs": described(outputs),
                     "method_name": "tensorflow/serving/predict", "defaults": {}}  # fmt: skip
        return {
            "model_spec": {"name": "m", "signature_name": "", "version": "3"},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        }

    def run(self, rows: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Return what the model gives for rows of numbers; raises Refused."""
        try:
            array = np.array(rows, np.float32)
            outputs = self._session.run(self._columns, {self._session.get_inputs()[0].name: array})
        except Exception as error:  # noqa: BLE001 - what a model says of its input is for the client
            raise Refused(400, f"Failed to process element: {type(error).__name__}") from None
        self.predictions += 1
        return dict(zip(self._columns, outputs, strict=True))

    def _run(self, rows: Any) -> dict[str, Any]:
        return {name: output.tolist() for name, output in self.run(rows).items()}

    def _predict(self, document: dict[str, Any]) -> dict[str, Any]:
        if ("instances" in document) == ("inputs" in document):
            raise Refused(400, "JSON Value: {} must have exactly one of 'instances' and 'inputs'")
        if "inputs" in document:
            inputs = document["inputs"]
            columns = self._run(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
            return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
        columns = self._run(document["instances"])
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}

    def _rows(self, document: dict[str, Any]) -> list[list[float]]:
        try:
            return [example["x"] for example in document["examples"]]
        except (KeyError, TypeError):
            raise Refused(400, "When method is classify, key 'examples' is expected") from None

    def _classify(self, document: dict[str, Any]) -> list[list[list[Any]]]:
        scores = self._run(self._rows(document))["probabilities"]
        return [[[str(index), score] for index, score in enumerate(row)] for row in scores]

    def _regress(self, document: dict[str, Any]) -> list[float]:
        columns = self._run(self._rows(document))
        return [row[0] for row in next(iter(columns.values()))]
