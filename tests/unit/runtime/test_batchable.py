"""Which models may have requests run together, each with its reason where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock_runtime.engine import batchable
from penstock_runtime.engine.batchable import ALONE, try_out, why_not_together
from penstock_runtime.engine.session import Session
from tests.unit.runtime.model_files import write_graph

ROWS: Sequence[int | None] = (None, 2)


Nodes = list[onnx.NodeProto]


def session(
    folder: Path, nodes: Nodes, constants: Mapping[str, np.ndarray], shape: Sequence[int | None] = ROWS
) -> Session:
    write_graph(
        folder, nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ROWS)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return Session(folder / "model.onnx", 1)


@pytest.mark.parametrize("model", ["iris", "text", "regression", "scaled", "half", "echo", "patient"])
def test_models_that_work_row_by_row(models: Path, model: str) -> None:
    assert why_not_together(Session(models / model / "model.onnx", 1)) is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [("slow", "the model does not tell the shape of output 'mean'"),
     ("picky", "the first dimension of output 'square' is fixed at 2")],
)  # fmt: skip
def test_models_whose_schema_says_no(models: Path, model: str, reason: str) -> None:
    assert why_not_together(Session(models / model / "model.onnx", 1)) == reason


def test_a_mean_over_the_batch_is_seen(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    reason = why_not_together(session(tmp_path / "m", nodes, {}))
    assert reason == "output 'y' of a row depends on the rows it is run with"


def test_a_scale_found_from_all_values_is_seen(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    reason = why_not_together(session(tmp_path / "m", nodes, {}))
    assert reason == "output 'y' of a row depends on the rows it is run with"


def test_rows_in_another_order_are_seen(tmp_path: Path) -> None:
    slices = {name: np.array([value], np.int64) for name, value in
              (("start", -1), ("end", -(2**31)), ("axis", 0), ("step", -1))}  # fmt: skip
    nodes = [helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["y"])]
    reason = why_not_together(session(tmp_path / "m", nodes, slices))
    assert reason == "output 'y' of a row depends on the rows it is run with"


def test_a_batch_of_one_baked_in_is_seen(tmp_path: Path) -> None:
    nodes = [  # the shape comes to light at run time only, or ONNX Runtime would put it into the schema
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("ReduceMax", ["nothing"], ["none"], keepdims=0),
        helper.make_node("Cast", ["none"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "one_row"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants: dict[str, np.ndarray] = {"zero": np.zeros(1, np.float32), "one_row": np.array([1, 2], np.int64)}
    reason = why_not_together(session(tmp_path / "m", nodes, constants))
    assert reason is not None
    assert reason.startswith("rows of several requests cannot be run together: the model failed: ")


def test_outputs_that_are_not_one_a_row_are_seen(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    reason = why_not_together(session(tmp_path / "m", nodes, {}))
    assert reason == "an output has the shape [6, 2] for 3 rows"


def test_a_model_that_answers_all_rows_alike_cannot_be_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "zero"], ["y"])]
    reason = why_not_together(session(tmp_path / "m", nodes, {"zero": np.zeros(1, np.float32)}))
    assert reason == "all synthetic rows get the same answer, so it cannot be told whether rows are kept apart"


def test_a_model_that_refuses_synthetic_rows_is_not_trusted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    reason = why_not_together(session(tmp_path / "m", nodes, {"shape": np.array([-1, 7], np.int64)}, [None, 7]))
    assert reason is not None
    assert reason.startswith("synthetic rows could not be run: the model failed: ")


def test_a_model_in_a_corner_is_tried_with_wider_values(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sub", ["x", "fifty"], ["far"]),
        helper.make_node("Relu", ["far"], ["y"]),
    ]
    assert why_not_together(session(tmp_path / "m", nodes, {"fifty": np.array([50], np.float32)})) is None


def test_what_company_saves_is_measured_of_fit_models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchable, "_MEASURED_UP_TO_SECONDS", 60.0)  # a busy machine must not end it
    found = try_out(Session(models / "iris" / "model.onnx", 1), 32)
    assert (found.max_rows, found.reason) == (32, None)
    assert found.saved != 0.0


def test_of_slow_models_nothing_is_measured(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchable, "_MEASURED_UP_TO_SECONDS", 0.0)
    assert try_out(Session(models / "iris" / "model.onnx", 1), 32) == (32, 0.0, None)


def test_an_unfit_model_runs_alone_and_a_bound_of_one_is_not_tried_out(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Session(models / "slow" / "model.onnx", 1)
    assert try_out(slow, 32) == (1, 0.0, "the model does not tell the shape of output 'mean'")
    monkeypatch.delattr(Session, "run")
    assert try_out(slow, 1) == ALONE
