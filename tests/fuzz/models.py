"""Models that take and give every datatype and kind of shape, and answer whatever they are given."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from onnx import TensorProto, helper

from tests.unit.runtime.model_files import write_all, write_graph, write_scaled


def write_models(folder: Path) -> None:
    """Write them, as a repository."""
    with tempfile.TemporaryDirectory() as every:
        write_all(Path(every))
        for name in ("echo", "half", "iris", "regression", "scaled", "text"):
            shutil.copytree(Path(every) / name, folder / name)
    for version in ("1", "2"):
        write_scaled(folder / "numbered" / version, factor=float(version))
    _write_any(folder / "any")


def _write_any(folder: Path) -> None:
    """Takes and gives an INT32 tensor of any rank."""
    write_graph(
        folder,
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.INT32, None)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
    )
