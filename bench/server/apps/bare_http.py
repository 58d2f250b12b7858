"""The bare stack: an ASGI app that decodes, runs the model, encodes, and does nothing else.

No checks, limits, ids, metrics, errors: the most that a single request at a time can reach on uvicorn, uvloop,
httptools, orjson and ONNX Runtime in Python. `python -m bench.server.apps.bare_http MODEL PORT`
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import orjson
import uvicorn

from bench.server.apps.model import DTYPES, Model

_LENGTH = b"inference-header-content-length"
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


class App:
    """Answers every POST as an inference request, and every GET with 200."""

    def __init__(self, model: Model) -> None:
        """Serve `model`."""
        self._model = model
        self._datatypes = model.outputs

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["method"] == "GET":
            await _answer(send, b"{}", [_JSON])
            return
        message = await receive()
        body = message["body"]
        if message.get("more_body"):
            parts = [body]
            while message.get("more_body"):
                message = await receive()
                parts.append(message["body"])
            body = b"".join(parts)
        for name, value in scope["headers"]:
            if name == _LENGTH:
                await self._answer_binary(send, body, int(value))
                return
        await self._answer_json(send, body)

    async def _answer_json(self, send: Any, body: bytes) -> None:
        tensor = orjson.loads(body)["inputs"][0]
        array = np.array(tensor["data"], DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
        outputs = [
            {"name": name, "datatype": datatype, "shape": output.shape, "data": output.ravel()}
            for (name, datatype), output in zip(self._datatypes, self._model(array), strict=True)
        ]
        answer = {"model_name": "m", "model_version": "1", "outputs": outputs}
        await _answer(send, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), [_JSON])

    async def _answer_binary(self, send: Any, body: bytes, length: int) -> None:
        tensor = orjson.loads(body[:length])["inputs"][0]
        array = np.frombuffer(body, DTYPES[tensor["datatype"]], offset=length).reshape(tensor["shape"])
        blobs = []
        outputs = []
        for (name, datatype), output in zip(self._datatypes, self._model(array), strict=True):
            blob = output.tobytes()
            blobs.append(blob)
            outputs.append({"name": name, "datatype": datatype, "shape": output.shape,
                            "parameters": {"binary_data_size": len(blob)}})  # fmt: skip
        head = orjson.dumps({"model_name": "m", "model_version": "1", "outputs": outputs})
        await _answer(send, b"".join((head, *blobs)), [_BINARY, (_LENGTH, b"%d" % len(head))])


async def _answer(send: Any, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve the model named on the command line."""
    model, port = sys.argv[1:]
    uvicorn.run(
        App(Model(model)), host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", ws="none",
        lifespan="off", interface="asgi3", log_level="error", access_log=False, server_header=False,
        date_header=False, proxy_headers=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
