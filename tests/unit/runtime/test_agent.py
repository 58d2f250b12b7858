"""An agent before a real server of the Open Inference Protocol: what passes, what is counted, what labels say."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_runtime.server.agent.paths import NO_COMMANDS
from tests.unit.runtime.binary import outputs
from tests.unit.runtime.conftest import StartAgent
from tests.unit.runtime.forwarding import NONE, url
from tests.unit.runtime.process import (
    SETOSA,
    VIRGINICA,
    AgentProcess,
    Reply,
    Server,
    ServerThread,
    call,
    iris_request,
)
from tests.unit.runtime.scrape import requests_by_outcome, sample

ID = "penstock-prediction-id"


@pytest.fixture
def agent(iris: Server, start_agent: StartAgent) -> AgentProcess:
    return start_agent(url(iris), PENSTOCK_REVISION="r1").ready()


@pytest.fixture(scope="session")
def regression(models: Path) -> Iterator[Server]:
    server = ServerThread("--model-path", str(models / "regression"), "--model-name", "m")
    try:
        yield server.ready()
    finally:
        server.kill()


def label(agent: Server, reply: Reply, value: object) -> dict[str, object]:
    assert reply.status == 200
    told: dict[str, object] = agent.feedback([{"id": reply.headers[ID], "label": value}]).json
    return told


def feedback_counts(agent: Server) -> tuple[float, float]:
    return tuple(sample(agent, "penstock_feedback_total", result=result, cohort="none")
                 for result in ("correct", "incorrect"))  # type: ignore[return-value] # fmt: skip


def test_an_answer_passes_byte_for_byte_with_the_agents_own_revision_and_id(agent: AgentProcess, iris: Server) -> None:
    theirs, ours = iris.infer(iris_request(SETOSA, id="7")), agent.infer(iris_request(SETOSA, id="7"))
    assert (ours.status, ours.body) == (200, theirs.body)
    assert ours.headers["penstock-revision"] == "r1"
    assert theirs.headers["penstock-revision"] == "none"
    assert ours.headers[ID] != theirs.headers[ID]
    assert ours.headers.keys() == theirs.headers.keys()


def test_labels_of_classes_are_compared_with_what_the_answers_said(agent: AgentProcess) -> None:
    assert label(agent, agent.infer(iris_request(SETOSA)), 0)["accepted"] == 1
    assert label(agent, agent.infer(iris_request(SETOSA)), 2)["accepted"] == 1
    assert label(agent, agent.infer(iris_request(SETOSA, VIRGINICA)), [0, 2])["accepted"] == 1
    assert feedback_counts(agent) == (3, 1)
    assert sample(agent, "penstock_feedback_class_total", label="2", predicted="0") == 1
    assert sample(agent, "penstock_prediction_total", **{"class": "0"}) == 3
    assert sample(agent, "penstock_prediction_total", **{"class": "2"}) == 1


def test_errors_of_a_regression_are_summed(regression: Server, start_agent: StartAgent) -> None:
    agent = start_agent(url(regression), PENSTOCK_FEEDBACK='{"tolerance": 0.5}').ready()
    reply = agent.infer(iris_request(SETOSA))
    predicted = reply.json["outputs"][0]["data"][0]
    assert label(agent, reply, predicted + 0.25)["accepted"] == 1
    assert label(agent, agent.infer(iris_request(SETOSA)), predicted - 1)["accepted"] == 1
    assert sample(agent, "penstock_feedback_error_sum") == pytest.approx(1.25, abs=1e-6)
    assert feedback_counts(agent) == (1, 1)
    assert sample(agent, "penstock_prediction_value_count") == 2


def test_a_binary_answer_is_read_too(agent: AgentProcess) -> None:
    reply = agent.infer(iris_request(VIRGINICA, SETOSA, parameters={"binary_data_output": True}))
    assert outputs(reply)["label"]["data"] == [2, 0]
    assert label(agent, reply, [2, 1])["accepted"] == 1
    assert feedback_counts(agent) == (1, 1)


def test_a_compressed_answer_passes_compressed_and_is_read(agent: AgentProcess) -> None:
    rows = [SETOSA] * 31 + [VIRGINICA]
    many = agent.infer(iris_request(*rows * 16), **{"accept-encoding": "gzip"})
    assert many.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(many.body))["outputs"][0]["data"] == ([0] * 31 + [2]) * 16
    assert sample(agent, "penstock_prediction_total", **{"class": "2"}) == 16


def test_without_the_deciding_output_an_id_still_takes_what_is_said_of_each_row(agent: AgentProcess) -> None:
    asked = iris_request(SETOSA, SETOSA, outputs=[{"name": "probabilities"}])
    reply = agent.infer(asked)
    assert label(agent, reply, [0, 0])["rejected"] == {"unmatched": 1, "duplicate": 0, "expired": 0}
    assert agent.feedback([{"id": reply.headers[ID], "correct": [True, False]}]).json["accepted"] == 1
    assert feedback_counts(agent) == (1, 1)


def test_the_output_that_decides_is_the_configured_one(iris: Server, start_agent: StartAgent) -> None:
    agent = start_agent(url(iris), PENSTOCK_FEEDBACK='{"output": "probabilities"}').ready()
    asked = iris_request(VIRGINICA, outputs=[{"name": "probabilities"}])
    assert label(agent, agent.infer(asked), 2)["accepted"] == 1
    assert feedback_counts(agent) == (1, 0)


def test_an_output_that_the_model_does_not_have_is_said_once_and_stops_nothing(
    iris: Server, start_agent: StartAgent
) -> None:
    agent = start_agent(url(iris), PENSTOCK_FEEDBACK='{"output": "colour"}').ready()
    for _ in range(3):
        reply = agent.infer(iris_request(SETOSA))
    assert label(agent, reply, 0)["rejected"] == {"unmatched": 1, "duplicate": 0, "expired": 0}
    agent.terminate()
    assert agent.wait_exit() == 0
    said = [line for line in agent.log if line["level"] == "error"]
    assert len(said) == 1
    assert said[0]["error"] == "feedback.output 'colour' is no output of the model; it gives label, probabilities"


def test_counted_is_inference_with_this_model_and_nothing_else(agent: AgentProcess) -> None:
    assert agent.get("/v2/models/m").json["name"] == "m"
    assert agent.get("/v2/health/live").json == {"live": True}
    assert agent.get("/v2/health/ready").json == {"ready": True}
    assert agent.get("/v2").json["name"] == "penstock-runtime"
    assert agent.get("/v2/models/m/stats").status == 200
    assert agent.infer(iris_request(SETOSA), model="other").status == 404
    assert requests_by_outcome(agent) == NONE
    assert agent.infer(iris_request(SETOSA)).status == 200
    path = "/v2/models/m/versions/{}/infer"
    assert call(agent.http_port, "POST", path.format(1), iris_request(SETOSA)).status == 200
    assert call(agent.http_port, "POST", path.format(9), iris_request(SETOSA)).status == 404
    assert call(agent.http_port, "GET", "/v2/models/m/infer").status == 405
    assert call(agent.http_port, "POST", "/v2/models/%6D/infer", b"no json").status == 400
    assert requests_by_outcome(agent) == {**NONE, "ok": 2, "client_error": 3}
    assert sample(agent, "penstock_request_duration_seconds_count") == 2


def test_errors_pass_with_the_revision_and_without_an_id(agent: AgentProcess, iris: Server) -> None:
    ours, theirs = agent.infer({"inputs": []}), iris.infer({"inputs": []})
    assert (ours.status, ours.body) == (400, theirs.body)
    assert ours.headers["penstock-revision"] == "r1"
    assert ID not in ours.headers


def test_a_head_request_gets_the_head(agent: AgentProcess, iris: Server) -> None:
    ours = call(agent.http_port, "HEAD", "/v2/models/m")
    assert (ours.status, ours.body) == (200, b"")
    assert ours.headers["content-length"] == str(len(iris.get("/v2/models/m").body))
    # The connection to the upstream is still of use.
    assert agent.infer(iris_request(SETOSA)).status == 200


def test_a_body_beyond_the_limit_is_refused_here(iris: Server, start_agent: StartAgent) -> None:
    agent = start_agent(url(iris), PENSTOCK_SERVING='{"maxBodyBytes": "1Ki"}').ready()
    assert agent.infer(b"{" + b" " * 1024).status == 413
    assert agent.infer(iris_request(SETOSA)).status == 200
    assert requests_by_outcome(agent) == {**NONE, "ok": 1, "client_error": 1}


def test_chunks_of_a_body_pass_as_a_whole(agent: AgentProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=60)
    body = json.dumps(iris_request(SETOSA)).encode()
    connection.request("POST", "/v2/models/m/infer", iter((body[:20], body[20:])), encode_chunked=True,
                       headers={"transfer-encoding": "chunked"})  # fmt: skip
    assert json.loads(connection.getresponse().read())["outputs"][0]["data"] == [0]
    connection.close()


def test_commands_do_not_pass(agent: AgentProcess) -> None:
    for path in (
        "/v2/repository/models/m/load", "/v2/repository/models/m/unload", "/v2/repository/any/models/m/load",
        "/v2/repository/models/a%2Fb/load", "/v2/%72epository/models/m/load", "//v2//repository/models/m/load/",
        "/v2/x/../repository/models/m/load", "/v2/logging", "/v2/trace/setting", "/v2/models/m/trace/setting",
        "/v2/models/m/versions/1/trace/setting", "/v2/systemsharedmemory/region/r/register",
        "/v2/cudasharedmemory/unregister",
    ):  # fmt: skip
        refused = call(agent.http_port, "POST", path, {})
        assert (refused.status, refused.json) == (403, {"error": NO_COMMANDS}), path
        assert call(agent.http_port, "GET", path).status == 404, (
            "it is the upstream's to say that there is no such path"
        )


def test_a_copy_of_another_servers_request_is_counted_apart(agent: AgentProcess) -> None:
    reply = agent.infer(iris_request(SETOSA), **{"penstock-shadow": "1"})
    assert reply.status == 200
    assert ID not in reply.headers
    assert requests_by_outcome(agent) == NONE
    assert sample(agent, "penstock_shadow_requests_total", outcome="ok") == 1


def test_files_change_the_cohort_and_how_predictions_are_judged(
    iris: Server, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = start_agent(url(iris), "--config-dir", str(tmp_path)).ready()
    (tmp_path / "cohort").write_text("r2-abcde")
    agent.wait_log("cohort changed")
    (tmp_path / "feedback").write_text('{"output": "probabilities"}')
    agent.wait_log("feedback changed")
    assert label(agent, agent.infer(iris_request(VIRGINICA, outputs=[{"name": "probabilities"}])), 2)["accepted"] == 1
    assert sample(agent, "penstock_feedback_total", result="correct", cohort="r2-abcde", revision="none") == 1


def test_ids_of_another_model_are_no_ids(agent: AgentProcess, iris: Server) -> None:
    stranger = iris.infer(iris_request(SETOSA)).headers[ID]
    assert agent.feedback([{"id": stranger, "label": 0}]).json["rejected"]["unmatched"] == 1
    assert agent.feedback([], model="other").status == 404
    assert agent.feedback(b"no json").status == 400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--upstream", "https://127.0.0.1:1", "--model-name", "m"), "'upstream': https is not supported"),
        (("--upstream", "127.0.0.1:8501", "--model-name", "m"), "'upstream' must be a URL"),
        (("--upstream", "http://127.0.0.1:1/v1", "--model-name", "m"), "'upstream' must have a host and a port"),
        (
            ("--upstream", "http://127.0.0.1:1", "--upstream-grpc", "localhost", "--model-name", "m"),
            "'upstream-grpc' must be",
        ),
        (("--upstream", "http://127.0.0.1:1"), "model-name: none is given"),
        (("--upstream", "http://127.0.0.1:1", "--model-name", "m", "--workers", "0"), "workers: 0 is less than 1"),
        (("--upstream", "http://127.0.0.1:1", "--model-name", "a/b"), "model-name: none is given"),
    ],
)
def test_wrong_settings_end_it_with_what_is_wrong(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    told = tmp_path / "termination"
    agent = AgentProcess(*arguments, "--termination-log", str(told))
    assert agent.wait_exit() == 1
    written = json.loads(told.read_text())
    assert written["reason"] == "InvalidConfiguration"
    assert said in written["message"]


def test_an_agent_needs_no_onnx_runtime() -> None:
    modules = "penstock_runtime.server.agent.command, penstock_runtime.server.agent.calls"
    code = f"import sys, {modules}; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
