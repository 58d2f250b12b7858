"""An agent before TensorFlow Serving's REST interface: readiness by state, counts, labels of every shape of answer."""

from __future__ import annotations

import pytest

from tests.unit.runtime.conftest import StartAgent, StartProcess, StartTf
from tests.unit.runtime.forwarding import NONE, forwarded, tell, url
from tests.unit.runtime.load import Load, until
from tests.unit.runtime.process import DEADLINE, SETOSA, VIRGINICA, Reply, Server, call
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.tf_serving import TfServing

ID = "penstock-prediction-id"


@pytest.fixture
def classifier(start_tf: StartTf) -> TfServing:
    """What most exports are: one output, the classes' scores."""
    return start_tf("iris", "probabilities")


def post(agent: Server, what: str, body: object) -> Reply:
    return call(agent.http_port, "POST", f"/v1/models/m{what}", body)


def accepted(agent: Server, reply: Reply, value: object) -> int:
    assert reply.status == 200, reply.body
    count: int = agent.feedback([{"id": reply.headers[ID], "label": value}]).json["accepted"]
    return count


def counts(agent: Server) -> tuple[float, ...]:
    return tuple(sample(agent, "penstock_feedback_total", result=result, cohort="none")
                 for result in ("correct", "incorrect"))  # fmt: skip


def test_labels_are_compared_in_row_and_column_format(classifier: TfServing, start_agent: StartAgent) -> None:
    agent = start_agent(classifier.url).ready()
    rows = [SETOSA, VIRGINICA]
    by_row, by_column = post(agent, ":predict", {"instances": rows}), post(agent, ":predict", {"inputs": rows})
    assert by_row.json["predictions"] == by_column.json["outputs"]
    assert accepted(agent, by_row, [0, 2]) == 1
    assert accepted(agent, by_column, [0, 1]) == 1
    assert counts(agent) == (3, 1)
    assert sample(agent, "penstock_prediction_total", **{"class": "2"}) == 2


def test_of_several_outputs_the_one_with_a_class_a_row_decides(start_tf: StartTf, start_agent: StartAgent) -> None:
    agent = start_agent(start_tf("text", "probabilities", "label").url).ready()
    reply = post(agent, ":predict", {"instances": [SETOSA, VIRGINICA]})
    assert [row["label"] for row in reply.json["predictions"]] == ["setosa", "virginica"]
    assert accepted(agent, reply, ["setosa", "setosa"]) == 1
    assert accepted(agent, post(agent, ":predict", {"inputs": [SETOSA]}), "setosa") == 1
    assert counts(agent) == (2, 1)


@pytest.mark.parametrize("output", ["probabilities", "dense_1"])
def test_the_only_output_has_no_name_and_is_the_configured_one(
    start_tf: StartTf, start_agent: StartAgent, output: str
) -> None:
    agent = start_agent(start_tf("iris", "probabilities").url, PENSTOCK_FEEDBACK=f'{{"output": "{output}"}}').ready()
    assert accepted(agent, post(agent, ":predict", {"instances": [VIRGINICA]}), 2) == 1
    assert counts(agent) == (1, 0)


def test_classification_and_regression_requests(start_tf: StartTf, start_agent: StartAgent) -> None:
    examples = {"examples": [{"x": SETOSA}, {"x": VIRGINICA}]}
    agent = start_agent(start_tf("iris", "probabilities").url).ready()
    reply = post(agent, ":classify", examples)
    assert [len(row) for row in reply.json["results"]] == [3, 3]
    assert accepted(agent, reply, ["0", "0"]) == 1
    assert counts(agent) == (1, 1)
    agent = start_agent(start_tf("regression", "variable").url).ready()
    reply = post(agent, ":regress", examples)
    first, second = reply.json["results"]
    assert accepted(agent, reply, [first + 0.5, second - 0.25]) == 1
    assert sample(agent, "penstock_feedback_error_sum") == pytest.approx(0.75)
    reply = post(agent, ":predict", {"instances": [SETOSA]})
    assert accepted(agent, reply, reply.json["predictions"][0][0]) == 1
    assert sample(agent, "penstock_feedback_error_count") == 3


def test_numbers_that_json_does_not_have_are_no_predictions(start_tf: StartTf, start_agent: StartAgent) -> None:
    agent = start_agent(start_tf("scaled", "y").url).ready()
    for value in (float("nan"), float("inf")):
        reply = post(agent, ":predict", {"instances": [[value]]})
        assert b"NaN" in reply.body or b"Infinity" in reply.body
        assert accepted(agent, reply, 1.0) == 0
    assert accepted(agent, post(agent, ":predict", {"instances": [[1.5]]}), 3.0) == 1
    assert sample(agent, "penstock_prediction_value_count") == 1


def test_counted_is_inference_with_this_model(classifier: TfServing, start_agent: StartAgent) -> None:
    agent = start_agent(classifier.url).ready()
    body = {"instances": [SETOSA]}
    assert agent.get("/v1/models/m").json["model_version_status"][0]["state"] == "AVAILABLE"
    assert agent.get("/v1/models/m/metadata").status == 200
    assert call(agent.http_port, "POST", "/v1/models/other:predict", body).status == 404
    # This upstream has no such path; it is no request to the model.
    assert agent.infer(body).status == 404
    assert requests_by_outcome(agent) == NONE
    for path in (":predict", "/versions/3:predict", "/labels/stable:predict"):
        assert post(agent, path, body).status == 200
    assert post(agent, "/versions/4:predict", body).status == 404
    assert post(agent, ":predict", b"no json").status == 400
    assert requests_by_outcome(agent) == {**NONE, "ok": 3, "client_error": 2}


def test_ready_is_the_state_and_not_the_status(classifier: TfServing, start_agent: StartAgent) -> None:
    classifier.state = "LOADING"
    agent = start_agent(classifier.url, "--protocol", "tfserving").start()
    assert agent.wait_log("the upstream is not ready")["why"] == (
        "no version of the model is available: version 3 is LOADING"
    )
    assert call(agent.http_port, "GET", "/v1/models/m").status == 200
    ready = agent.get("/v2/health/ready")
    assert (ready.status, ready.json["ready"]) == (503, False)
    assert sample(agent, "penstock_model_loaded") == 0
    classifier.state = "AVAILABLE"
    agent.wait_log("ready")
    assert agent.get("/v2/health/ready").json == {"ready": True}
    assert sample(agent, "penstock_model_loaded") == 1


def test_probes_of_the_agent_cost_the_upstream_nothing(classifier: TfServing, start_agent: StartAgent) -> None:
    agent = start_agent(classifier.url).ready()
    before = classifier.requests.total()
    for _ in range(100):
        assert agent.get("/v2/health/ready").status == 200
    assert classifier.requests.total() - before <= 1


def test_metadata_is_told_in_the_protocols_terms(start_tf: StartTf, start_agent: StartAgent) -> None:
    agent = start_agent(start_tf("iris", "probabilities", "label").url).ready()
    assert agent.get("/v2/models/m").json == {
        "name": "m",
        "versions": ["3"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


async def test_a_share_is_forwarded_to_another_revisions_agent(start_tf: StartTf, start_agent: StartAgent) -> None:
    first, second = start_tf("iris", "probabilities"), start_tf("iris", "probabilities")
    stable = start_agent(first.url, PENSTOCK_REVISION="stable").ready()
    canary = start_agent(second.url, PENSTOCK_REVISION="canary").ready()
    assert tell(stable, to=url(canary), share=0.2).status == 200
    body = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
    load = Load(stable.http_port, path="/v1/models/m:predict", body=body)
    await load.run(400, clients=4)
    assert load.failures == []
    assert abs(load.answers["canary"] - 80) <= 2
    assert requests_by_outcome(canary)["ok"] == load.answers["canary"] == forwarded(stable)["forwarded"]
    assert requests_by_outcome(stable)["ok"] == load.answers["stable"] == first.predictions
    named = Load(stable.http_port, path="/v1/models/m/versions/3:predict", body=body)
    await named.run(20, clients=1)
    assert named.answers == {"stable": 20}


async def test_the_protocol_is_found_out_once_a_server_is_there(
    start_tf: StartTf, start_process: StartProcess, start_agent: StartAgent
) -> None:
    agent = start_agent(start_tf("iris", "probabilities").url)
    assert agent.wait_log("the upstream is ready")["protocol"] == "tfserving"
    server = start_process("iris").ready()
    assert start_agent(url(server)).wait_log("the upstream is ready")["protocol"] == "oip"


def test_a_model_that_the_upstream_does_not_have_is_never_ready(classifier: TfServing, start_agent: StartAgent) -> None:
    agent = start_agent(classifier.url, "--model-name", "missing").start()
    why = agent.wait_log("the upstream is not ready")["why"]
    assert why == "GET /v2/health/ready is answered with 404; or GET /v1/models/missing is answered with 404"
    assert agent.get("/v2/health/ready").json == {"ready": False, "error": why}


async def test_a_state_that_changes_is_seen_within_seconds(classifier: TfServing, start_agent: StartAgent) -> None:
    agent = start_agent(classifier.url).ready()
    classifier.state = "UNLOADING"

    def is_ready() -> bool:
        return agent.get("/v2/health/ready").status == 200

    await until(lambda: not is_ready(), seconds=DEADLINE)
    # Requests still pass: who sends them knows the readiness.
    assert post(agent, ":predict", {"instances": [SETOSA]}).status == 200
