"""The bare stack for gRPC: grpcio's synchronous server with a handler that decodes, runs, encodes and nothing else.

`python -m bench.server.apps.bare_grpc MODEL PORT`
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from bench.server.apps.model import DTYPES, Model
from bench.server.messages import METHOD, ModelInferRequest, ModelInferResponse

THREADS = 4


class Handler:
    """ModelInfer of one model."""

    def __init__(self, model: Model) -> None:
        """Serve `model`."""
        self._model = model

    def __call__(self, request: Any, context: object) -> Any:
        """Answer one request."""
        tensor = request.inputs[0]
        array = np.frombuffer(request.raw_input_contents[0], DTYPES[tensor.datatype]).reshape(tensor.shape)
        response = ModelInferResponse(model_name="m", model_version="1")
        for (name, datatype), output in zip(self._model.outputs, self._model(array), strict=True):
            response.outputs.add(name=name, datatype=datatype, shape=output.shape)
            response.raw_output_contents.append(output.tobytes())
        return response


def main() -> None:
    """Serve the model named on the command line."""
    model, port = sys.argv[1:]
    _, service, method = METHOD.split("/")
    handler = grpc.unary_unary_rpc_method_handler(
        Handler(Model(model)),
        request_deserializer=ModelInferRequest.FromString,
        response_serializer=ModelInferResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
