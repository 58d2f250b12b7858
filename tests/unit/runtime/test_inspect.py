"""`penstock-runtime inspect`: what it says of a model is so, and it says what would stop it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from penstock_runtime.__main__ import main
from penstock_runtime.engine.batch_schema import why_not_by_schema
from penstock_runtime.engine.session import Session
from tests.unit.runtime.fetching import make_place
from tests.unit.runtime.hostile_files import (
    adding_model,
    function_with,
    model,
    outside_tensor,
    write,
    write_weights,
)
from tests.unit.runtime.process import SOURCES
from tests.unit.runtime.test_onnx_file import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet_logs")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def inspect(capsys: Capture) -> Any:
    """Return a function that inspects a path and returns the exit code and the JSON."""

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["inspect", "--json", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("name", ["iris", "text", "regression", "echo", "slow", "patient", "half", "picky"])
def test_the_schema_is_the_one_that_is_served(models: Path, inspect: Any, name: str) -> None:
    code, report = inspect(models / name)
    assert code == 0
    assert report["problems"] == []
    schema = Session(models / name / "model.onnx", 1).schema
    for role, specs in (("inputs", schema.inputs), ("outputs", schema.outputs)):
        assert [(each["name"], each["datatype"]) for each in report[role]] == [(s.name, s.datatype) for s in specs]
    shapes = [[-1] if each["shape"] is None else each["shape"] for each in report["inputs"]]
    assert shapes == [spec.describe()["shape"] for spec in schema.inputs]
    reason = why_not_by_schema(schema)
    assert report["batching"] == {"by_schema": reason is None, "reason": reason}


def test_the_whole_report_of_a_forest(models: Path, inspect: Any) -> None:
    path = models / "iris" / "model.onnx"
    code, report = inspect(path)
    made = onnx.load(path)
    assert code == 0
    assert report["file"] == str(path)
    assert report["size"] == report["bytes"] == path.stat().st_size
    assert report["producer"] == {"name": "skl2onnx", "version": made.producer_version}
    assert report["ir_version"] == made.ir_version
    assert report["opsets"]["ai.onnx.ml"] == next(o.version for o in made.opset_import if o.domain == "ai.onnx.ml")
    assert report["operators"]["ai.onnx.ml.TreeEnsembleClassifier"] == 1
    assert sum(report["operators"].values()) == len(made.graph.node)
    assert report["inputs"][0]["dims"] == [None, 4]
    assert (report["custom_domains"], report["functions"], report["external_data"]) == ([], [], [])


def test_digests_are_those_that_fetching_reports(tmp_path: Path, inspect: Any) -> None:
    place = make_place(tmp_path)
    folder = place.source / "fraud"
    (folder / "weights").mkdir(parents=True)
    write_weights(folder / "weights")
    write(folder, adding_model(outside_tensor(location="weights/w.bin")))
    (folder / "..2026").mkdir()
    (folder / "..2026" / "hidden").write_text("the kubelet's own")
    code, fetched = place.fetch("pvc://models/fraud")
    assert code == 0
    code, report = inspect(folder)
    assert (code, report["digest"], report["bytes"], report["files"]) == (
        0, fetched["digest"], fetched["bytes"], fetched["files"],
    )  # fmt: skip
    (folder / "alone.onnx").write_bytes(model([]).SerializeToString())
    _, fetched = place.fetch("pvc://models/fraud/alone.onnx", "--dest", str(tmp_path / "other"))
    assert inspect(folder / "alone.onnx")[1]["digest"] == fetched["digest"]


def test_external_data_functions_and_names_of_sizes(tmp_path: Path, inspect: Any) -> None:
    write_weights(tmp_path)
    made = adding_model(outside_tensor())
    made.graph.node[0].op_type, made.graph.node[0].domain = "Shift", "own.functions"
    made.functions.append(function_with(WEIGHTS))
    helper.set_model_props(made, {"trained": "2026"})
    code, report = inspect(write(tmp_path, made))
    assert code == 0
    assert report["external_data"] == [{"file": "w.bin", "size": 32}]
    assert report["functions"] == ["own.functions.Shift"]
    assert report["inputs"][0] == {
        "name": "x", "datatype": "FP32", "shape": [-1, 4], "dims": ["batch", 4], "type": "tensor(float)",
    }  # fmt: skip
    assert report["metadata"] == {"trained": "2026"}
    assert report["parameters"] == 4


def test_what_would_stop_it_is_said_as_loading_says_it(models: Path, tmp_path: Path, inspect: Any) -> None:
    for name, datatype in (("brain", "bfloat16"), ("zipmap", "seq(map(int64,tensor(float)))")):
        path = models / name / "model.onnx"
        with pytest.raises(Exception, match="is of type") as error:
            Session(path, 1)
        code, report = inspect(path)
        assert code == 1
        assert report["problems"] == [str(error.value)]
        assert report["batching"]["by_schema"] is False
        assert datatype in json.dumps([report["inputs"], report["outputs"]])
    write(tmp_path, adding_model(outside_tensor(location="../x")))
    code, report = inspect(tmp_path)
    assert code == 1
    assert "leads out of the model's folder" in report["problems"][0]


def test_custom_domains_and_whether_they_are_allowed(
    tmp_path: Path, inspect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, model([helper.make_node(op, ["x"], ["y"], domain="own.ops") for op in ("B", "A", "B")]))
    code, report = inspect(path)
    assert code == 1
    assert report["custom_domains"] == [{"domain": "own.ops", "operators": ["A", "B"], "allowed": False}]
    assert len(report["problems"]) == 2
    code, report = inspect(path, "--allow-custom-domains", "own.ops")
    assert (code, report["problems"], report["custom_domains"][0]["allowed"]) == (0, [], True)
    monkeypatch.setenv("PENSTOCK_ALLOW_CUSTOM_DOMAINS", "own.ops")
    assert inspect(path)[0] == 0


def test_lines_for_people(models: Path, capsys: Capture) -> None:
    assert main(["inspect", str(models / "iris")]) == 0
    text = capsys.readouterr().out
    assert "\n  Inputs      X  FP32 [?, 4]\n" in text
    assert "\n  Outputs     label          INT64 [?]\n              probabilities  FP32 [?, 3]\n" in text
    assert "\n  Serving     nothing in the files speaks against it\n" in text
    assert main(["inspect", str(models / "brain")]) == 1
    assert "give the model a Cast to float" in capsys.readouterr().out


def test_a_file_cannot_write_to_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], WEIGHTS)
    made.producer_name = "\x1b[2Jevil\r\n"
    made.graph.input[0].name = "\x1b]0;x\x07\u202e"
    assert main(["inspect", str(write(tmp_path, made))]) == 0
    text = capsys.readouterr().out
    assert "\\x1b[2Jevil\\r\\n" in text
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "no model at"), ("corrupt", "model.onnx is not an ONNX model"), ("corrupt/model.onnx", "cut off")],
)
def test_what_is_no_model_is_an_error(models: Path, inspect: Any, name: str, message: str) -> None:
    code, report = inspect(models / name)
    assert code == 1
    assert message in report["error"]


def test_an_error_for_people(models: Path, capsys: Capture) -> None:
    assert main(["inspect", str(models / "missing")]) == 1
    assert capsys.readouterr().err.startswith("penstock-runtime inspect: no model at")


def test_it_needs_neither_onnx_nor_onnx_runtime_nor_protobuf(models: Path) -> None:
    script = (
        "import sys; from penstock_runtime.__main__ import main; "
        f"code = main(['inspect', '--json', {str(models / 'iris')!r}]); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        "sys.exit(code or str({'onnx', 'onnxruntime', 'google'} & loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(SOURCES)}, capture_output=True, check=False
    )
    assert done.stderr == b"set()\n"
