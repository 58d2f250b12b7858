"""KServe's SDK server with a model of one's own, as its documentation tells users of ONNX Runtime to do.

Settings: uvloop (its server makes a plain asyncio loop unless a policy says otherwise), logging off, one process.
`python -m bench.server.apps.kserve_server --model_name m --model_path FILE --http_port N --grpc_port N ...`
"""

from __future__ import annotations

import argparse
import asyncio

import kserve
import uvloop
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse

from bench.server.apps.model import Model


class OnnxModel(kserve.Model):  # type: ignore[misc]
    """Runs the model where the request is, which on one core is quicker than a thread."""

    def __init__(self, name: str, path: str) -> None:
        """Load the file at `path`."""
        super().__init__(name)
        self._model = Model(path)
        self.ready = True

    def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None, response_headers: object = None
    ) -> InferResponse:
        """Answer one request."""
        arrays = self._model(payload.inputs[0].as_numpy())
        outputs = []
        binary = payload.use_binary_outputs
        for (name, datatype), array in zip(self._model.outputs, arrays, strict=True):
            output = InferOutput(name=name, shape=list(array.shape), datatype=datatype)
            output.set_data_from_numpy(array, binary_data=binary)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or "0", model_name=self.name, infer_outputs=outputs,
            from_grpc=payload.from_grpc, use_binary_outputs=binary, requested_outputs=payload.request_outputs,
        )  # fmt: skip


def main() -> None:
    """Serve the model named on the command line."""
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument("--model_path", required=True)
    args = parser.parse_args()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())  # which it looks for before it makes the one it runs
    kserve.ModelServer().start([OnnxModel(args.model_name, args.model_path)])


if __name__ == "__main__":
    main()
