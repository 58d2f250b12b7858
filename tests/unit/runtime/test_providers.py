"""What was asked for to compute on is used, or the load fails and says why. There is no GPU, and that is the case."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import onnxruntime as ort
import pytest

from penstock_runtime.engine.compute import Compute
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.providers import _why_not
from penstock_runtime.engine.session import Session
from penstock_runtime.server.settings import SettingsError, add_arguments, read_settings
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, ServerProcess, iris_request

BUILT_WITHOUT = "cuda was asked for, and this ONNX Runtime is built without it"


def compute_of(*words: str, **env: str) -> Compute:
    parser = ArgumentParser()
    add_arguments(parser)
    return read_settings(parser.parse_args(["--model-path", "m", *words]), env).serving.compute


def test_the_cpu_is_used_unless_told_otherwise() -> None:
    assert compute_of() == Compute(("cpu",), None)
    assert compute_of("--providers", "cuda,cpu", "--gpu-memory", "8Gi") == Compute(("cuda", "cpu"), 8 * 2**30)
    assert compute_of(PENSTOCK_PROVIDERS="cuda", PENSTOCK_GPU_MEMORY="500Mi") == Compute(("cuda",), 500 * 2**20)
    assert compute_of("--providers", "cpu", PENSTOCK_PROVIDERS="cuda") == Compute(("cpu",), None)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--providers", "gpu"], "providers: 'gpu' is not one or several of cpu, cuda"),
     (["--providers", "cpu,cpu"], "providers: 'cpu cpu' is not one or several of cpu, cuda"),
     (["--providers", ","], "providers: '' is not one or several of cpu, cuda"),
     (["--gpu-memory", "much"], "gpu-memory")],
)  # fmt: skip
def test_what_is_no_provider_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        compute_of(*words)


def test_a_gpu_that_is_asked_for_and_absent_fails_the_load(models: Path) -> None:
    assert "CUDAExecutionProvider" not in ort.get_available_providers(), "this test is for the CPU's ONNX Runtime"
    with pytest.raises(ModelLoadError) as caught:
        Session(models / "iris" / "model.onnx", 1, compute=Compute(("cuda",)))
    assert str(caught.value) == BUILT_WITHOUT


def test_the_cpu_makes_do_only_if_it_was_asked_for(models: Path) -> None:
    session = Session(models / "iris" / "model.onnx", 1, compute=Compute(("cuda", "cpu")))
    assert (session.provider, session.fallback) == ("cpu", BUILT_WITHOUT)
    assert Session(models / "iris" / "model.onnx", 1).fallback is None


def test_a_driver_that_is_missing_is_named() -> None:
    assert "libpenstock-none.so.1" in _why_not(["libpenstock-none.so.1"])
    assert _why_not(["libc.so.6"]) == "ONNX Runtime sees no GPU that it supports"


def test_a_server_says_why_it_is_not_ready(models: Path, tmp_path: Path) -> None:
    told = tmp_path / "termination"
    server = ServerProcess(
        "--model-path", str(models / "iris"), "--providers", "cuda", "--termination-log", str(told)
    )  # fmt: skip
    try:
        assert server.wait_exit() != 0
        assert BUILT_WITHOUT in told.read_text()
    finally:
        server.kill()


def test_a_server_that_makes_do_says_so(start_server: Start) -> None:
    server = start_server("iris", "--providers", "cuda,cpu").start()
    line = server.wait_log("computes on something else than was asked for first")
    assert (line["level"], line["provider"], line["reason"]) == ("warning", "cpu", BUILT_WITHOUT)
    server.wait_log("ready")
    assert server.loaded["provider"] == "cpu"
    assert server.infer(iris_request(SETOSA)).status == 200
    group = server.get("/v2/models/m/config").json["instance_group"][0]
    assert group["kind"] == "KIND_CPU"
