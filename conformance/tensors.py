"""Values of every datatype, extremes among them."""

from __future__ import annotations

from typing import Any

import numpy as np

TINY = np.finfo(np.float32).smallest_subnormal
VALUES: dict[str, np.ndarray[Any, Any]] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "BYTES": np.array([["grüße", ""], ['\x00\n"\\', "\U0001f600"]], np.object_),
    "FP32": np.array([[1.5, -0.1], [3.4e38, TINY]], np.float32),
    "FP64": np.array([[0.1, 1e300], [-0.0, 5e-324]], np.float64),
    "INT8": np.array([[-128, 127], [0, 1]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1], [0, 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [0, 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [0, 1]], np.int64),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 2**16 - 1], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2]], np.uint64),
}
SETOSA = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
VIRGINICA = np.array([[7.7, 2.6, 6.9, 2.3]], np.float32)


def texts(array: np.ndarray[Any, Any]) -> list[str]:
    """Return the elements of a BYTES tensor as text; the client gives bytes or text by how they came."""
    return [item.decode() if isinstance(item, bytes) else item for item in array.ravel().tolist()]


def assert_same(datatype: str, found: np.ndarray[Any, Any] | None, expected: np.ndarray[Any, Any]) -> None:
    """Fail unless the tensors are the same to the last bit."""
    assert found is not None
    assert found.shape == expected.shape
    if datatype == "BYTES":
        assert texts(found) == texts(expected)
    else:
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
