"""Golden requests: a model folder may tell what the model must answer, and is not served if it does not.

A file `golden.json` beside the model holds a list of

    {"inputs": [...], "outputs": [{"name", "shape"?, "data"}], "tolerance": {"absolute", "relative"}}

`inputs` as in a request of the protocol; `data` nested to the shape or flat; the tolerance is optional.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from penstock_runtime.engine.closeness import Tolerance, difference
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.onnx_file.check import why_outside
from penstock_runtime.engine.session import Session
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.schema import TensorSpec

FILE = "golden.json"
MAX_BYTES = 64 * 2**20


def rehearse_golden(session: Session, folder: Path) -> int:
    """Run the golden requests of `folder` and return how many there are; raises ModelLoadError at the first misfit."""
    file = folder / FILE
    try:
        if not file.is_file():
            if os.path.lexists(file):
                raise ModelLoadError(f"{FILE} is no regular file")
            return 0
        if (outside := why_outside(file)) is not None:
            raise ModelLoadError(outside)
        if file.stat().st_size > MAX_BYTES:
            raise ModelLoadError(f"{FILE} is larger than {MAX_BYTES} bytes")
        cases = orjson.loads(file.read_bytes())
    except OSError as error:
        raise ModelLoadError(f"{FILE} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise ModelLoadError(f"{FILE} is not valid JSON: {error}") from None
    if type(cases) is not list:
        raise ModelLoadError(f"{FILE} must be a list of objects with inputs and outputs")
    decoder = Decoder(session.schema)
    for index, case in enumerate(cases):
        try:
            _check(session, decoder, case)
        except (ProtocolError, ValueError, TypeError, OverflowError) as error:
            raise ModelLoadError(f"{FILE}, request {index}: {error}") from None
    return len(cases)


def _check(session: Session, decoder: Decoder, case: object) -> None:
    if not isinstance(case, Mapping):
        raise ValueError("it must be an object with inputs and outputs")
    outputs = case.get("outputs")
    if type(outputs) is not list or not outputs or not all(isinstance(output, Mapping) for output in outputs):
        raise ValueError("'outputs' must be a list of what is expected: objects with name and data")
    tolerance = _tolerance(case.get("tolerance", {}))
    wanted = [{"name": output.get("name"), "parameters": {"binary_data": True}} for output in outputs]
    request = decoder.decode(orjson.dumps({"inputs": case.get("inputs"), "outputs": wanted}))
    specs = {spec.name: spec for spec in session.schema.outputs}
    for expected, actual in zip(outputs, session.run(request.outputs, request.inputs), strict=True):
        _compare(expected, actual, specs[expected["name"]], tolerance)


def _compare(expected: Mapping[str, Any], actual: np.ndarray[Any, Any], spec: TensorSpec, tolerance: Tolerance) -> None:
    data = expected.get("data")
    with np.errstate(over="ignore"):  # it would warn on stderr; infinity differs from what the model gives anyway
        values = np.array(data, np.object_ if spec.datatype == "BYTES" else spec.dtype)
    # A flat list is taken in the shape that came back, unless the shape is told.
    shape: Sequence[int] = expected.get("shape", actual.shape if values.ndim == 1 else values.shape)
    differs = difference(values.reshape(shape) if values.size == actual.size else values, actual, tolerance)
    if differs is not None:
        raise ValueError(f"output '{spec.name}': {differs}")


def _tolerance(spec: object) -> Tolerance:
    if not isinstance(spec, Mapping):
        raise ValueError('\'tolerance\' must be an object such as {"absolute": 1e-4, "relative": 1e-4}')
    default = Tolerance()
    values = [float(spec.get(key, getattr(default, key))) for key in ("absolute", "relative")]
    if any(not value >= 0 for value in values):
        raise ValueError("a tolerance must be a number >= 0")
    return Tolerance(*values)
