"""Servers as the benchmark starts them: they answer as ONNX Runtime alone does, and wrong answers are seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.server.cases import BARE, CASES, LEAN, MLSERVER, PENSTOCK, Case
from bench.server.measure import NOT_SERVED, ask, check, prepare
from bench.server.models import LAYERS, ModelFile, write_models
from bench.server.servers import Alone, Server, Servers, plans

IRIS_JSON = CASES[0]
IRIS_BINARY = replace(IRIS_JSON, id="iris-binary", protocol="binary")
IRIS_GRPC = next(case for case in CASES if case.id == "iris-grpc-1")


@pytest.fixture(scope="module")
def models() -> dict[str, ModelFile]:
    return write_models()


@pytest.fixture(scope="module")
def running(models: dict[str, ModelFile], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with Servers(models["iris"], tmp_path_factory.mktemp("servers")) as servers:
        yield {name: servers.start(name) for name in (PENSTOCK, LEAN, BARE)}


@pytest.mark.parametrize(
    ("name", "case"),
    [(PENSTOCK, IRIS_JSON), (PENSTOCK, IRIS_BINARY), (LEAN, IRIS_JSON), (BARE, IRIS_JSON), (BARE, IRIS_BINARY),
     (BARE, IRIS_GRPC)],
    ids=lambda value: value if isinstance(value, str) else value.id,
)  # fmt: skip
def test_answers_are_those_of_onnx_runtime_alone(
    running: dict[str, Server], models: dict[str, ModelFile], tmp_path: Path, name: str, case: Case
) -> None:
    load = prepare(case, models["iris"], tmp_path)
    assert check(case, running[name], load, models["iris"]) == ""
    assert load.answer_bytes[name] > 10
    other = replace(models["iris"], row=np.array([[7.7, 2.6, 6.9, 2.3]], np.float32))
    assert "output" in check(case, running[name], load, other)


def test_what_is_not_served_is_said(running: dict[str, Server], models: dict[str, ModelFile], tmp_path: Path) -> None:
    load = prepare(IRIS_GRPC, models["iris"], tmp_path)
    assert check(IRIS_GRPC, running[LEAN], load, models["iris"]) == NOT_SERVED
    gone = replace(running[BARE], grpc_port=1)
    assert check(IRIS_GRPC, gone, load, models["iris"]).startswith(f"{NOT_SERVED}: UNAVAILABLE")


def test_penstock_signs_its_predictions_and_the_lean_one_does_not(
    running: dict[str, Server], models: dict[str, ModelFile], tmp_path: Path
) -> None:
    load = prepare(IRIS_JSON, models["iris"], tmp_path)
    ids = {
        name: ask(IRIS_JSON, running[name].http_port, load)[1]["penstock-prediction-id"] for name in (PENSTOCK, LEAN)
    }
    assert len(ids[PENSTOCK]) > 30
    assert ids[LEAN] == ""


def test_a_running_server_is_ready_and_weighs_something(running: dict[str, Server]) -> None:
    for server in running.values():
        assert 0 < server.start_seconds < 60
        assert server.processes[0].resident_mb() > 20


def test_onnx_runtime_alone(models: dict[str, ModelFile], tmp_path: Path) -> None:
    alone = Alone(models["mlp"], tmp_path)
    try:
        assert alone.run(0.1) > 10
    finally:
        alone.process.close()


def test_the_models_are_what_the_report_says(models: dict[str, ModelFile]) -> None:
    assert models["mlp"].mflop == pytest.approx(1.337, abs=0.001)
    assert 120 < models["conv"].mflop < 140
    assert models["conv"].row.shape == (1, 3, 96, 96)
    assert len(LAYERS) == 6


def test_a_server_that_nobody_knows(models: dict[str, ModelFile], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no server 'triton'"):
        plans("triton", models["iris"], tmp_path, 1, 2)


def test_mlserver_does_not_speak_binary_tensors() -> None:
    assert Server(MLSERVER, http_port=5, grpc_port=6).port("binary") == 0
    assert Server(MLSERVER, http_port=5, grpc_port=6).port("grpc") == 6
