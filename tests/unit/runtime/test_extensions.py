"""Model configuration and statistics, as tools of other servers ask for them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from penstock_runtime.engine.job import Ran
from penstock_runtime.server import statistics
from penstock_runtime.server.statistics import Statistics
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, VIRGINICA, Server, iris_request
from tests.unit.runtime.scrape import sample

BASE = "/v2/models/m"


@pytest.mark.parametrize("path", [f"{BASE}/config", f"{BASE}/versions/1/config"])
def test_the_configuration_names_tensors_and_limits(iris: Server, path: str) -> None:
    config = iris.get(path).json
    assert config["name"] == "m"
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1, 4]}]
    assert config["output"][0] == {"name": "label", "data_type": "TYPE_INT64", "dims": [-1]}
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert config["instance_group"][0]["count"] >= 1
    assert config["parameters"]["max_body_bytes"] == {"string_value": str(64 * 2**20)}
    assert config["parameters"]["threads"] == {"string_value": "1"}


def test_texts_are_strings_in_the_configuration(start_server: Start) -> None:
    output = start_server("text").ready().get(f"{BASE}/config").json["output"][0]
    assert output == {"name": "label", "data_type": "TYPE_STRING", "dims": [-1]}


def stats(server: Server, path: str = f"{BASE}/stats") -> dict[str, Any]:
    (model,) = server.get(path).json["model_stats"]
    assert (model["name"], model["version"]) == ("m", "1")
    return dict(model)


def test_statistics_begin_at_0_whatever_has_been_warmed_up_or_probed(start_server: Start) -> None:
    server = start_server("iris").ready()
    server.get("/v2/health/ready")
    server.get(BASE)
    model = stats(server)
    assert (model["last_inference"], model["inference_count"], model["execution_count"]) == (0, 0, 0)
    zero = {"count": 0, "ns": 0}
    assert model["inference_stats"] == dict.fromkeys(
        ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"),
        zero,
    )
    assert (model["batch_stats"], model["memory_usage"]) == ([], [])


@pytest.mark.parametrize("path", [f"{BASE}/stats", f"{BASE}/versions/1/stats", "/v2/models/stats"])
def test_statistics_count_requests_rows_and_time(start_server: Start, path: str) -> None:
    server = start_server("iris").ready()
    before = time.time()
    for rows in ([SETOSA], [SETOSA], [SETOSA, VIRGINICA, SETOSA]):
        server.infer(iris_request(*rows))
    server.infer({})
    server.infer({}, model="other")
    model = stats(server, path)
    assert (model["inference_count"], model["execution_count"]) == (5, 3)
    assert before * 1000 - 1 <= model["last_inference"] <= time.time() * 1000
    found = model["inference_stats"]
    assert {name: item["count"] for name, item in found.items()} == {
        "success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 3,
        "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    assert found["fail"]["ns"] > 0
    stages = ("compute_input", "compute_infer", "compute_output")
    assert all(found[stage]["ns"] > 0 for stage in stages)
    assert found["queue"]["ns"] + sum(found[stage]["ns"] for stage in stages) < found["success"]["ns"]
    seconds = sample(server, "penstock_request_duration_seconds_sum")
    assert found["success"]["ns"] == pytest.approx(seconds * 1e9, abs=2)
    one, three = model["batch_stats"]
    assert (one["batch_size"], one["compute_infer"]["count"]) == (1, 2)
    assert (three["batch_size"], three["compute_infer"]["count"]) == (3, 1)
    for stage in stages:
        assert one[stage]["ns"] + three[stage]["ns"] == pytest.approx(found[stage]["ns"], abs=2)


def test_sizes_of_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_BATCH_SIZES", 3)
    numbers = Statistics()
    for rows in (5, 4, 3, 2, 5):
        numbers.ran(rows, 2e-9)
        numbers.answered(rows, Ran([], 0.0, 2e-9, rows), 1e-9, 3e-9)
    model = numbers.describe("m", "1")
    assert [batch["batch_size"] for batch in model["batch_stats"]] == [3, 4, 5]
    assert model["batch_stats"][2]["compute_infer"] == {"count": 2, "ns": 4}
    assert model["inference_count"] == 19
    assert model["inference_stats"]["compute_output"] == {"count": 5, "ns": 15}


def test_a_run_of_several_requests_is_one_execution() -> None:
    numbers = Statistics()
    numbers.ran(3, 5e-9)
    for rows in (1, 2):
        numbers.answered(rows, Ran([], 0.0, 5e-9, 3), 1e-9, 2e-9)
    model = numbers.describe("m", "1")
    assert (model["inference_count"], model["execution_count"]) == (3, 1)
    assert model["inference_stats"]["compute_infer"] == {"count": 2, "ns": 10}
    (batch,) = model["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]) == (3, {"count": 1, "ns": 5})
    assert batch["compute_input"] == {"count": 1, "ns": 2}


def test_a_model_may_be_named_stats(models: Any, start_server: Start) -> None:
    server = start_server("iris", "--model-name", "stats").ready()
    assert server.get("/v2/models/stats").json["platform"] == "onnx_onnxv1"
    assert server.get("/v2/models/stats/stats").json["model_stats"][0]["name"] == "stats"
