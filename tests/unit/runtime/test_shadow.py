"""Shadowing between real servers: what is copied, what agrees, who counts, and that users notice nothing."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest

from penstock_runtime.server.shadow import shadower
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.forwarding import NONE, never, start_target, tell, url
from tests.unit.runtime.process import SETOSA, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.shadowing import pairs, shadow, start_pair, state
from tests.unit.runtime.targets import Target, answering, response
from tests.unit.runtime.test_overload import wait_until


def row(*values: float, **more: object) -> dict[str, object]:
    return {"inputs": [tensor("x", "FP32", [len(values), 1], list(values))], **more}


def test_copies_are_answered_compared_and_counted_apart_from_users_requests(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    assert shadow(stable, to=url(canary), fraction=1).status == 200
    for _ in range(5):
        reply = stable.infer(iris_request(SETOSA, id="7"))
        assert (reply.status, reply.headers["penstock-revision"]) == (200, "stable")
    wait_until(lambda: pairs(stable) == {"agree": 5, "disagree": 0, "error": 0})
    assert requests_by_outcome(stable) == {**NONE, "ok": 5}
    assert requests_by_outcome(canary) == NONE
    assert sample(canary, "penstock_shadow_requests_total", outcome="ok") == 5
    assert sample(stable, "penstock_shadow_requests_total", outcome="ok") == 0
    for name in ("request_duration_seconds", "inference_duration_seconds", "queue_duration_seconds"):
        assert sample(canary, f"penstock_{name}_count") == 0
    assert "penstock_prediction_total{" not in canary.metrics_text()
    assert canary.get("/v2/models/m/stats").json["model_stats"][0]["inference_stats"]["success"]["count"] == 0
    assert state(stable)["counts"] == {"seen": 5, "agree": 5, "disagree": 0, "error": 0, "dropped": 0}


def test_what_differs_is_counted_by_output_and_a_tolerance_allows_it(factors: Path, start_server: Start) -> None:
    stable, canary = start_pair(start_server, "twice", "nearly")
    shadow(stable, to=url(canary), fraction=1, tolerance={"relative": 1e-4})
    assert stable.infer(row(1.0, 5.0)).status == 200
    wait_until(lambda: pairs(stable) == {"agree": 0, "disagree": 1, "error": 0})
    assert state(stable)["disagreements"] == {"y": 1}
    shadow(stable, to=url(canary), fraction=1, tolerances={"y": {"relative": 1e-2}})
    stable.infer(row(1.0, 5.0))
    wait_until(lambda: pairs(stable) == {"agree": 1, "disagree": 1, "error": 0})
    assert state(stable)["disagreements"] == {}


@pytest.mark.parametrize("kind", ["json", "binary", "gzip", "raw", "one output", "version"])
def test_requests_of_every_form_are_copied_whole(factors: Path, start_server: Start, kind: str) -> None:
    stable, canary = start_pair(start_server, "twice", "thrice")
    shadow(stable, to=url(canary), fraction=1)
    path = "/v2/models/m/infer"
    body: object = row(1.0, 2.0)
    headers = {}
    match kind:
        case "binary":
            inputs = [{"name": "x", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}}]
            head = json.dumps({"inputs": inputs}).encode()
            body, headers = head + struct.pack("<2f", 1, 2), {"inference-header-content-length": str(len(head))}
        case "gzip":
            body, headers = gzip.compress(json.dumps(body).encode()), {"content-encoding": "gzip"}
        case "raw":
            body, headers = struct.pack("<2f", 1, 2), {"inference-header-content-length": "0"}
        case "one output":
            body = row(1.0, 2.0, outputs=[{"name": "k"}])
        case "version":
            path = "/v2/models/m/versions/1/infer"
    assert call(stable.http_port, "POST", path, body, {"accept-encoding": "gzip", **headers}).status == 200
    wait_until(lambda: sum(pairs(stable).values()) == 1)
    expected = {} if kind == "one output" else {"y": 1}
    assert (state(stable)["disagreements"], state(stable)["error_reasons"]) == (expected, {})


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_requests_that_have_to_wait_for_the_model_are_copied_too(start_server: Start, accepted: str) -> None:
    stable, canary = start_pair(start_server, "slow", "slow")
    shadow(stable, to=url(canary), fraction=1)
    body = {"inputs": [tensor("n", "INT64", [1], [10])]}
    assert stable.infer(body, **{"accept-encoding": accepted}).status == 200
    wait_until(lambda: pairs(stable) == {"agree": 1, "disagree": 0, "error": 0})


def test_an_answer_that_is_compressed_is_compared_all_the_same(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    shadow(stable, to=url(canary), fraction=1)
    reply = stable.infer(iris_request(*[SETOSA] * 500), **{"accept-encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    wait_until(lambda: pairs(stable) == {"agree": 1, "disagree": 0, "error": 0})


def test_the_exact_fraction_of_answered_requests_is_copied(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, answering(response(200, b'{"outputs":[]}')))
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=0.1)
    for _ in range(200):
        server.infer(iris_request(SETOSA))
        server.infer({"bad": 1})
    wait_until(lambda: pairs(server)["disagree"] == 20)
    assert state(server)["counts"]["seen"] == 200, "what was refused has no answer to compare"
    assert all(b"penstock-shadow: 1\r\n" in request for request in target.requests)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(500, b"{}"), "status 500"),
        (response(429, b"{}"), "status 429"),
        (response(200, b"nonsense"), "unreadable"),
        (response(200, b"{}", "inference-header-content-length: x"), "unreadable"),
        (b"garbage\r\n\r\n", "garbled"),
        (b"", "dropped"),
    ],
)
def test_what_cannot_be_compared_is_an_error(
    start_server: Start, targets: list[Target], answer: bytes, reason: str
) -> None:
    target = start_target(targets, answering(answer, close=True))
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=1)
    assert server.infer(iris_request(SETOSA)).status == 200
    wait_until(lambda: pairs(server)["error"] == 1)
    assert state(server)["error_reasons"] == {reason: 1}
    assert requests_by_outcome(server) == {**NONE, "ok": 1}


def test_a_target_that_hangs_is_given_few_copies_and_the_rest_are_dropped(
    start_server: Start, targets: list[Target]
) -> None:
    target = start_target(targets, never)
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=1)
    count = shadower.CONCURRENT + shadower.MAX_WAITING + 30
    for _ in range(count):
        assert server.infer(iris_request(SETOSA)).status == 200
    wait_until(lambda: len(target.requests) == shadower.CONCURRENT)
    assert sample(server, "penstock_shadow_dropped_total") == 30
    found = state(server)
    assert (found["waiting"], found["counts"]["dropped"]) == (shadower.MAX_WAITING, 30)
    assert pairs(server) == {"agree": 0, "disagree": 0, "error": 0}
    call(server.admin_port, "DELETE", "/v2/shadow")
    assert state(server) == {"shadow": None, "source": "admin", "generation": None}


def test_copies_that_wait_are_bounded_by_their_bytes(
    start_server: Start, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadower, "MAX_WAITING_BYTES", 1000)
    target = start_target(targets, never)
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=1)
    assert server.infer(iris_request(*[SETOSA] * 100)).status == 200
    assert sample(server, "penstock_shadow_dropped_total") == 1


def test_copies_are_neither_copied_nor_forwarded_again(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    shadow(stable, to=url(canary), fraction=1)
    shadow(canary, to=url(stable), fraction=1)
    tell(canary, to=url(stable), share=1)
    stable.infer(iris_request(SETOSA))
    wait_until(lambda: pairs(stable)["agree"] == 1)
    assert pairs(canary) == {"agree": 0, "disagree": 0, "error": 0}
    assert state(canary)["counts"]["seen"] == 0
    assert requests_by_outcome(stable) == {**NONE, "ok": 1}


def test_what_is_forwarded_is_not_copied(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    shadow(stable, to=url(canary), fraction=1)
    tell(stable, to=url(canary), share=1)
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    assert state(stable)["counts"]["seen"] == 0


def test_a_bad_setting_is_refused_and_changes_nothing(start_server: Start) -> None:
    server = start_server("iris").ready()
    shadow(server, to="http://127.0.0.1:1", fraction=0)
    before = state(server)
    reply = shadow(server, to="http://127.0.0.1:1", fraction=1, tolerances={"probs": {"absolute": 1}})
    assert (reply.status, reply.json["error"]) == (
        400, "shadow: 'tolerances' has 'probs'; the model's outputs are label, probabilities",
    )  # fmt: skip
    assert shadow(server, to="http://127.0.0.1:1", fraction="1").status == 400
    assert state(server) == before


def test_a_mounted_file_is_known_from_the_start_and_its_mistakes_are_said(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    setting = {"to": url(canary), "fraction": 1, "tolerances": {"probs": {"absolute": 1}}}
    (tmp_path / "shadow.json").write_text(json.dumps(setting))
    stable = start_server("iris", "--config-dir", str(tmp_path))
    stable.start()
    error = stable.wait_log("a tolerance is for no output of the model")["error"]
    assert error == "'tolerances' has 'probs'; the model's outputs are label, probabilities"
    stable.wait_log("ready")
    stable.infer(iris_request(SETOSA))
    wait_until(lambda: pairs(stable)["agree"] == 1)
