"""One ONNX model in ONNX Runtime: loaded, described, warmed, run."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from penstock_runtime.engine.compute import ON_CPU, Compute
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.onnx_file.check import check_model
from penstock_runtime.engine.providers import open_session
from penstock_runtime.engine.tensor_type import tensor_spec
from penstock_runtime.protocol.errors import InferenceFailed, InvalidRequest
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

PLATFORM = "onnx_onnxv1"

_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_WARMUP_RUNS = 25
_WARMUP_SECONDS = 1.0

Tensor = np.ndarray[Any, Any]


class Warmup(NamedTuple):
    """What warm-up saw: the median seconds of a run of `elements` input elements, or why it failed."""

    seconds: float | None
    elements: int
    failure: str | None


class Session:
    """A loaded model. `run` may be called from several threads at once."""

    def __init__(
        self, path: Path, threads: int, custom_domains: Collection[str] = (), compute: Compute = ON_CPU
    ) -> None:
        """Load the ONNX file with `threads` intra-op threads; raises ModelLoadError with the reason.

        `custom_domains`: those beyond ONNX Runtime's own that its operators may be of. `provider` tells what `compute`
        came to, `fallback` why it is not what was asked for first.
        """
        check_model(path, custom_domains)
        self.threads = threads
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Else the file's name decides, and it would not be what was checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # ONNX Runtime's own error lines can quote values of a request; its exceptions tell us all.
        options.log_severity_level = 4
        try:
            opened = open_session(path, options, compute)
        except ModelLoadError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a corrupt file provokes is a failed load
            raise ModelLoadError(f"ONNX Runtime cannot load {path.name}: {plain_text(error)}") from None
        self._session, self.provider, self.fallback = opened.session, opened.provider, opened.fallback
        # The wrapper checks inputs that have been checked already, which takes as long as a small model.
        self._run = getattr(self._session, "_sess", self._session).run
        self.schema = ModelSchema(
            tuple(_describe(arg, "input") for arg in self._session.get_inputs()),
            tuple(_describe(arg, "output") for arg in self._session.get_outputs()),
        )

    def run(
        self,
        outputs: Sequence[str],
        inputs: dict[str, Tensor],
        options: ort.RunOptions | None = None,
    ) -> list[Tensor]:
        """Return the tensors named in `outputs`.

        Raises InvalidRequest where the input is at fault by ONNX Runtime's own word, else InferenceFailed.
        Setting `options.terminate` from another thread ends the run.
        """
        try:
            result: list[Tensor] = self._run(outputs, inputs, options)
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise InvalidRequest(f"the model refused the input: {plain_text(error)}") from None
        except Exception as error:  # noqa: BLE001 - the model's kernels may raise anything
            raise InferenceFailed(f"the model failed: {plain_text(error)}") from None
        return result

    def warm_up(self) -> Warmup:
        """Run synthetic rows (zeros, empty strings; sizes of -1 become 1) until timing is steady.

        At most 25 runs or about a second after the first. A model that refuses synthetic rows is not
        broken by that: the failure is returned, not raised.
        """
        names = [spec.name for spec in self.schema.outputs]
        feeds = {spec.name: _synthetic(spec) for spec in self.schema.inputs}
        elements = sum(array.size for array in feeds.values())
        times: list[float] = []
        try:
            self.run(names, feeds)
            deadline = time.perf_counter() + _WARMUP_SECONDS
            while len(times) < _WARMUP_RUNS and (not times or time.perf_counter() < deadline):
                start = time.perf_counter()
                self.run(names, feeds)
                times.append(time.perf_counter() - start)
        except (InvalidRequest, InferenceFailed) as error:
            return Warmup(None, elements, error.message)
        return Warmup(statistics.median(times), elements, None)


def plain_text(error: BaseException) -> str:
    """Return an ONNX Runtime error as one line of at most 500 characters, without its prefix."""
    text = " ".join(_ORT_PREFIX.sub("", str(error)).split())
    return text[:500]


def _describe(arg: Any, role: str) -> TensorSpec:
    return tensor_spec(arg.name, arg.type, arg.shape, role)


def _synthetic(spec: TensorSpec) -> Tensor:
    shape = [1 if dim == -1 else dim for dim in spec.shape or ()]
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=np.object_)
    return np.zeros(shape, spec.dtype)
