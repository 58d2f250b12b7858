"""ONNX Runtime for MLServer, which has none of its own: a custom runtime as its documentation tells users to write.

`mlserver start FOLDER`, where model-settings.json names this class.
"""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.server.apps.model import Model


class OnnxRuntime(MLModel):  # type: ignore[misc]
    """Runs the model where the request is, which on one core is quicker than a thread."""

    async def load(self) -> bool:
        """Load the file that the settings name."""
        self._model = Model(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        arrays = self._model(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [
            NumpyCodec.encode_output(name, array) for (name, _), array in zip(self._model.outputs, arrays, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
