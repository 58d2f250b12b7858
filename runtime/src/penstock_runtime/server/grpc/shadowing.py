"""Copies of answered ModelInfer calls, as requests over HTTP: so shadows and what is compared are the same for both."""

from __future__ import annotations

from urllib.parse import quote

from penstock_runtime.engine.line import Ran
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.grpc.metadata import is_copy, passing
from penstock_runtime.server.serving import Serving
from penstock_runtime.server.shadow.shadower import Copy, Shadower


class Shadowing:
    """The gRPC side of `shadower`."""

    def __init__(self, shadower: Shadower) -> None:
        """Offer it what is answered."""
        self._shadower = shadower

    def offer(self, call: Call, serving: Serving, request: InferRequest, ran: Ran) -> None:
        """Have an answered call copied if it is of the fraction; from any thread."""
        if not self._shadower.active or is_copy(call.metadata):
            return
        active = self._shadower.choose(serving.name)
        if active is None:
            return
        inputs = {spec.name: spec for spec in serving.schema.inputs}
        outputs = {spec.name: spec for spec in serving.schema.outputs}
        # Binary values of metadata are nothing that HTTP has.
        headers = [(name.encode(), value.encode()) for name, value in passing(call.metadata) if isinstance(value, str)]
        copy = Copy(
            serving.metrics,
            f"/v2/models/{quote(serving.name, safe='')}/infer".encode(),
            headers,
            inputs=[(inputs[name], array) for name, array in request.inputs.items()],
            asked=[outputs[name] for name in request.outputs],
        )
        copy.keep(request, ran)
        call.tell(self._shadower.accept, active, copy)
