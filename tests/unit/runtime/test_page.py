"""The page's endpoints without a browser: what they answer, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path

import pytest

from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.server.page.document import document
from penstock_runtime.server.page.example import example_request, pretty
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, Reply, Server, call, iris_request, tensor, unloaded_repository

JSON = {"Content-Type": "application/json"}


def attempt(server: Server, body: object, path: str = "/try/m", headers: dict[str, str] | None = None) -> Reply:
    return call(server.admin_port, "POST", path, body, JSON if headers is None else headers)


def test_the_page_runs_its_own_script_alone(start_server: Start) -> None:
    server = start_server("iris").ready()
    page = call(server.admin_port, "GET", "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    text = page.body.decode()
    assert not re.findall(r'\b(?:src|href|action)="(?!data:)', text)
    assert not re.findall(r"""\son\w+=|\sstyle=""", text)
    assert call(server.admin_port, "HEAD", "/").status == 200
    assert call(server.admin_port, "POST", "/").status == 405
    assert server.get("/").status == 404, "the data port has no page"


def test_the_state_has_sums_and_counts(start_server: Start) -> None:
    server = start_server("iris").ready()
    for _ in range(3):
        server.infer(iris_request(SETOSA, SETOSA))
    server.infer({})
    state = call(server.admin_port, "GET", "/state").json
    assert state["ready"] is True
    assert 20 * 2**20 < state["memory_bytes"] < 16 * 2**30
    assert 0 <= state["uptime_seconds"] < 600
    (model,) = state["models"]
    assert (model["name"], model["state"], model["loads"], model["in_flight"]) == ("m", "READY", [1, "1"], 0)
    assert (model["requests"]["ok"], model["requests"]["client_error"]) == (3, 1)
    assert sum(count for _, count in model["durations"]) == 3
    assert model["batches"] == [6.0, 3]
    assert model["queue"][1] == 3


def test_a_try_is_answered_as_the_data_port_would_and_counts_nowhere(start_server: Start) -> None:
    server = start_server("iris").ready()
    answered = server.infer(iris_request(SETOSA, id="x")).json
    metrics, stats = server.metrics_text(), server.get("/v2/models/m/stats").body
    tried = [attempt(server, iris_request(SETOSA, id="x"), path) for path in ("/try/m", "/try/m/versions/1")]
    assert [reply.json for reply in tried] == [answered] * 2
    assert "penstock-prediction-id" not in tried[0].headers
    assert attempt(server, {}).status == 400
    assert (server.metrics_text(), server.get("/v2/models/m/stats").body) == (metrics, stats)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/try/nobody", JSON, 404),
        ("/try/m/versions/9", JSON, 404),
        ("/try/", JSON, 404),
        ("/try/m", {}, 400),
        ("/try/m", {"Content-Type": "text/plain"}, 400),
        ("/try/m", {**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
        ("/try/m", {**JSON, "Sec-Fetch-Site": "same-site"}, 403),
        ("/try/m", {**JSON, "Sec-Fetch-Site": "same-origin"}, 200),
        ("/try/m", {**JSON, "Content-Length": str(17 * 2**20)}, 413),
    ],
)
def test_what_is_not_tried(start_server: Start, path: str, headers: dict[str, str], status: int) -> None:
    server = start_server("iris").ready()
    reply = attempt(server, iris_request(SETOSA), path, headers)
    assert reply.status == status
    assert status == 200 or set(reply.json) == {"error"}


def test_one_try_at_a_time_and_requests_do_not_wait_for_it(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"timeout": "5s"}').ready()
    long = {"inputs": [tensor("n", "INT64", [1], [10**9])]}
    replies: list[Reply] = []
    trying = threading.Thread(target=lambda: replies.append(attempt(server, long)))
    trying.start()
    end = time.monotonic() + 10
    while server.pending == 0:
        assert time.monotonic() < end
    assert attempt(server, {"inputs": [tensor("n", "INT64", [1], [1])]}).status == 429
    assert server.infer({"inputs": [tensor("n", "INT64", [1], [1])]}).status == 200
    trying.join(60)
    assert [reply.status for reply in replies] == [504]
    end = time.monotonic() + 10
    while attempt(server, {"inputs": [tensor("n", "INT64", [1], [1])]}).status != 200:
        assert time.monotonic() < end, "the run that nobody waits for must end, and let the next one in"


async def test_names_cannot_change_the_page(models: Path) -> None:
    repository = unloaded_repository(models / "iris")
    await repository.load_all()
    try:
        model = repository.models.pop("m")
        model.name = '"><script>alert(1)</script>'
        model.reason = "<img src=x>"
        repository.models[model.name] = model
        text = document(repository, "<b>").decode()
    finally:
        repository.close()
        await asyncio.sleep(0)
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert "<b>" not in text


def test_examples_are_requests_that_can_be_edited() -> None:
    schema = ModelSchema(
        (TensorSpec("a", "FP32", (-1, 2, 2)), TensorSpec("b", "BYTES", (-1,)), TensorSpec("c", "BOOL", None)),
        (TensorSpec("y", "INT64", (-1,)),),
    )
    assert json.loads(str(example_request(schema)))["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [1, 2, 2], "data": [[[0.0, 0.0], [0.0, 0.0]]]},
        {"name": "b", "datatype": "BYTES", "shape": [1], "data": [""]},
        {"name": "c", "datatype": "BOOL", "shape": [], "data": [False]},
    ]


@pytest.mark.parametrize("spec", [TensorSpec("x", "FP32", (-1, 4097)), TensorSpec("x", "FP16", (-1, 2))])
def test_some_models_have_no_example(spec: TensorSpec) -> None:
    assert example_request(ModelSchema((spec,), (TensorSpec("y", "FP32", (-1,)),))) is None


def test_pretty_json_is_the_same_json() -> None:
    value = {"a": [{"b": [[1, 2], [3, 4]], "c": {}}, {"d": []}], "e": "ü\n", "f": 1.5e300, "g": 2**63}
    text = pretty(value)
    assert json.loads(text) == value
    assert '      "b": [[1, 2], [3, 4]],\n' in text
