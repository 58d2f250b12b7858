"""Copies that an agent sends of what its upstream has answered: what agrees, what differs, and who counts it."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest

from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.agent.shadow import Copy
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.shadow.setting import Shadowing
from tests.unit.runtime.conftest import Start, StartAgent, StartTf
from tests.unit.runtime.forwarding import NONE, start_target, tell, url
from tests.unit.runtime.grpc_client import iris_raw, iris_typed
from tests.unit.runtime.grpc_stub import Stub
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import SETOSA, VIRGINICA, AgentProcess, Server, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.shadowing import ask, pairs, shadow, state
from tests.unit.runtime.targets import Target, answering, response
from tests.unit.runtime.test_overload import wait_until

ROWS = {"inputs": [tensor("x", "FP32", [2, 1], [1.0, 2.0])]}


@pytest.fixture
def scaling(start_server: Start, start_agent: StartAgent, tmp_path: Path) -> tuple[AgentProcess, Server]:
    """An agent before a server that doubles, and another server, which does it nearly."""
    for name, factor in (("twice", 2.0), ("nearly", 2.001)):
        write_scaled(tmp_path / name, factor=factor)
    ours, theirs = (start_server(str(tmp_path / name)) for name in ("twice", "nearly"))
    return start_agent(url(ours.ready())).ready(), theirs.ready()


def test_copies_go_to_another_server_which_counts_them_apart(
    iris: Server, start_server: Start, start_agent: StartAgent
) -> None:
    other = start_server("iris").ready()
    agent = start_agent(url(iris)).ready()
    assert shadow(agent, to=url(other), fraction=1).status == 200
    for _ in range(5):
        assert agent.infer(iris_request(SETOSA, VIRGINICA)).status == 200
    assert agent.infer({"inputs": []}).status == 400
    wait_until(lambda: pairs(agent) == {"agree": 5, "disagree": 0, "error": 0})
    assert state(agent)["counts"] == {"seen": 5, "agree": 5, "disagree": 0, "error": 0, "dropped": 0}
    assert requests_by_outcome(agent) == {**NONE, "ok": 5, "client_error": 1}
    assert requests_by_outcome(other) == NONE
    assert sample(other, "penstock_shadow_requests_total", outcome="ok") == 5


@pytest.mark.parametrize("kind", ["json", "binary", "gzip", "binary answer", "large answer"])
def test_requests_of_every_form_are_copied_as_they_came(scaling: tuple[AgentProcess, Server], kind: str) -> None:
    agent, other = scaling
    shadow(agent, to=url(other), fraction=1, tolerance={"absolute": 0, "relative": 1e-4})
    body: object = ROWS
    headers = {"accept-encoding": "gzip"}
    match kind:
        case "binary":
            inputs = [{"name": "x", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}}]
            head = json.dumps({"inputs": inputs}).encode()
            body = head + struct.pack("<2f", 1, 2)
            headers["inference-header-content-length"] = str(len(head))
        case "gzip":
            body = gzip.compress(json.dumps(ROWS).encode())
            headers["content-encoding"] = "gzip"
        case "binary answer":
            body = {**ROWS, "parameters": {"binary_data_output": True}}
        case "large answer":
            body = {"inputs": [tensor("x", "FP32", [5000, 1], [1.5] * 5000)]}
    assert agent.infer(body, **headers).status == 200
    wait_until(lambda: sum(pairs(agent).values()) == 1)
    assert (state(agent)["disagreements"], state(agent)["error_reasons"]) == ({"y": 1}, {})
    shadow(agent, to=url(other), fraction=1, tolerances={"y": {"relative": 1e-2}})
    assert agent.infer(body, **headers).status == 200
    wait_until(lambda: pairs(agent) == {"agree": 1, "disagree": 1, "error": 0})


def test_what_names_a_version_or_is_a_copy_or_goes_elsewhere_is_not_copied(
    scaling: tuple[AgentProcess, Server],
) -> None:
    agent, other = scaling
    shadow(agent, to=url(other), fraction=1)
    assert call(agent.http_port, "POST", "/v2/models/m/versions/1/infer", ROWS).status == 200
    assert agent.infer(ROWS, **{"penstock-shadow": "1"}).status == 200
    assert agent.get("/v2/models/m").status == 200
    tell(agent, to=url(other), share=1)
    assert agent.infer(ROWS).status == 200
    assert state(agent)["counts"]["seen"] == 0


def test_a_tolerance_for_no_output_is_refused_once_the_outputs_are_known(
    start_server: Start, start_agent: StartAgent, tmp_path: Path
) -> None:
    setting = {"to": "http://127.0.0.1:1", "fraction": 0, "tolerances": {"z": {"absolute": 1}}}
    (tmp_path / "shadow.json").write_text(json.dumps(setting))
    agent = start_agent(url(start_server("iris").ready()), "--config-dir", str(tmp_path))
    agent.start()
    why = "'tolerances' has 'z'; the model's outputs are label, probabilities"
    assert agent.wait_log("a tolerance is for no output of the model")["error"] == why
    agent.wait_log("ready")
    before = state(agent)
    assert before["source"] == "file"
    reply = shadow(agent, **setting)
    assert (reply.status, reply.json["error"]) == (400, f"shadow: {why}")
    assert state(agent) == before


@pytest.mark.parametrize(
    ("columns", "what", "body"),
    [
        (["probabilities"], ":predict", {"instances": [SETOSA]}),
        (["probabilities", "label"], ":predict", {"instances": [SETOSA, VIRGINICA]}),
        (["probabilities", "label"], ":predict", {"inputs": [SETOSA, VIRGINICA]}),
        (["probabilities"], ":classify", {"examples": [{"x": SETOSA}]}),
        (["probabilities"], ":regress", {"examples": [{"x": SETOSA}]}),
    ],
)
def test_the_answers_of_two_tensorflow_servings_are_compared(
    start_tf: StartTf, start_agent: StartAgent, columns: list[str], what: str, body: object
) -> None:
    first, second = start_tf("iris", *columns), start_tf("iris", *columns)
    agent, other = start_agent(first.url).ready(), start_agent(second.url).ready()
    shadow(agent, to=url(other), fraction=1)
    assert call(agent.http_port, "POST", f"/v1/models/m{what}", body).status == 200
    wait_until(lambda: pairs(agent) == {"agree": 1, "disagree": 0, "error": 0})
    assert (first.predictions, second.predictions) == (1, 1)
    assert requests_by_outcome(other) == NONE
    assert sample(other, "penstock_shadow_requests_total", outcome="ok") == 1


def test_tensorflow_servings_that_differ_disagree_but_for_the_tolerance(
    start_tf: StartTf, start_agent: StartAgent, tmp_path: Path
) -> None:
    for name, factor in (("twice", 2.0), ("nearly", 2.001)):
        write_scaled(tmp_path / name, factor=factor)
    agent = start_agent(start_tf(str(tmp_path / "twice"), "y").url).ready()
    other = start_tf(str(tmp_path / "nearly"), "y")
    shadow(agent, to=other.url, fraction=1, tolerance={"absolute": 0, "relative": 1e-4})
    body = {"instances": [[1.0], [2.0]]}
    assert call(agent.http_port, "POST", "/v1/models/m:predict", body).status == 200
    wait_until(lambda: state(agent)["disagreements"] == {"output": 1})
    shadow(agent, to=other.url, fraction=1, tolerances={"output": {"relative": 1e-2}})
    assert call(agent.http_port, "POST", "/v1/models/m:predict", body).status == 200
    wait_until(lambda: pairs(agent) == {"agree": 1, "disagree": 1, "error": 0})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(500, b"{}"), "status 500"),
        (response(200, b'{"outputs":[{"name":"y"}]}'), "unreadable"),
        (response(200, b"{}", "content-encoding: br"), "unreadable"),
        (response(200, b"{}", "content-encoding: gzip"), "unreadable"),
    ],
)
def test_what_cannot_be_compared_is_an_error(
    iris: Server, start_agent: StartAgent, targets: list[Target], answer: bytes, reason: str
) -> None:
    agent = start_agent(url(iris)).ready()
    shadow(agent, to=start_target(targets, answering(answer)).url, fraction=1)
    assert agent.infer(iris_request(SETOSA)).status == 200
    wait_until(lambda: state(agent)["error_reasons"] == {reason: 1})


BYTES = '{"b64": "aGk="}'


@pytest.mark.parametrize(
    ("ours", "theirs", "differ"),
    [
        ('{"predictions": [[1.0, NaN]]}', '{"predictions": [[1.00001, NaN]]}', []),
        ('{"predictions": [[1.0, NaN]]}', '{"predictions": [[1.0, 2.0]]}', ["output"]),
        ('{"predictions": [1, 2]}', '{"predictions": [1, 3]}', ["output"]),
        ('{"predictions": [1, 2]}', '{"predictions": [1]}', ["output"]),
        ('{"predictions": ["a"]}', '{"predictions": ["b"]}', ["output"]),
        (f'{{"predictions": [{BYTES}]}}', f'{{"predictions": [{BYTES}]}}', []),
        (f'{{"predictions": [{BYTES}]}}', '{"predictions": [{"b64": "aG8="}]}', ["output"]),
        ('{"predictions": [[1.0], [2.0, 3.0]]}', '{"predictions": [[1.0], [2.0, 3.0]]}', []),
        ('{"predictions": [[1.0], [2.0, 3.0]]}', '{"predictions": [[1.0], [2.0]]}', ["output"]),
        ('{"outputs": {"a": [1.0], "b": [2.0]}}', '{"outputs": {"a": [1.0], "c": [2.0]}}', ["b"]),
        ('{"predictions": [{"a": 1.0, "b": 2}]}', '{"predictions": [{"a": 1.00001, "b": 3}]}', ["b"]),
    ],
)
def test_values_of_tensorflow_serving_agree_within_the_tolerance_or_exactly(
    ours: str, theirs: str, differ: list[str]
) -> None:
    answered, copied = (Response(200, [], text.encode()) for text in (ours, theirs))
    copy = Copy(Metrics("m", "r1"), Inference("tfserving", "predict", versioned=False), b"/", [], b"", answered)
    assert copy.differing(copied, Shadowing(Address("x", 80), 1.0)) == differ


def test_calls_are_copied_over_http_and_compared_like_requests(
    iris: Server, start_server: Start, start_agent: StartAgent
) -> None:
    other = start_server("iris").ready()
    agent = start_agent(url(iris), "--upstream-grpc", f"127.0.0.1:{iris.grpc_port}").ready()
    shadow(agent, to=url(other), fraction=1)
    ask(agent, iris_raw(SETOSA, VIRGINICA), iris_typed(SETOSA), iris_raw(SETOSA, outputs=["label"]))
    ask(agent, iris_raw(*[SETOSA] * 20_000))
    wait_until(lambda: pairs(agent) == {"agree": 4, "disagree": 0, "error": 0})
    ask(agent, iris_raw(SETOSA, model_version="1"))
    ask(agent, iris_raw(SETOSA), **{"penstock-shadow": "1"})
    assert state(agent)["counts"] == {"seen": 4, "agree": 4, "disagree": 0, "error": 0, "dropped": 0}
    assert requests_by_outcome(agent) == {**NONE, "ok": 5}
    assert requests_by_outcome(other) == NONE
    assert sample(other, "penstock_shadow_requests_total", outcome="ok") == 4


def test_calls_that_are_answered_otherwise_disagree(
    iris: Server, start_agent: StartAgent, targets: list[Target]
) -> None:
    agent = start_agent(url(iris), "--upstream-grpc", f"127.0.0.1:{iris.grpc_port}").ready()
    body = json.dumps({"outputs": [tensor("label", "INT64", [1], [2])]}).encode()
    target = start_target(targets, answering(response(200, body)))
    shadow(agent, to=target.url, fraction=1)
    ask(agent, iris_raw(SETOSA), **{"x-user": "u", "content-length": "7", "accept-encoding": "gzip"})
    wait_until(lambda: state(agent)["disagreements"] == {"label": 1, "probabilities": 1})
    head = target.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v2/models/m/infer HTTP/1.1"
    assert {b"x-user: u", b"penstock-shadow: 1"} <= set(head)
    assert sum(line.startswith(b"content-length:") for line in head) == 1
    assert not any(line.startswith(b"accept-encoding:") for line in head)


def test_an_answer_over_grpc_that_is_none_is_an_error(
    iris: Server, start_agent: StartAgent, targets: list[Target]
) -> None:
    stub = Stub(lambda *_: b"\xff")
    try:
        agent = start_agent(url(iris), "--upstream-grpc", stub.address).ready()
        shadow(agent, to=start_target(targets, answering(response(200, b"{}"))).url, fraction=1)
        ask(agent, iris_raw(SETOSA))
        wait_until(lambda: state(agent)["error_reasons"] == {"unreadable": 1})
    finally:
        stub.close()
