"""Copies of TensorFlow Serving's calls over gRPC: what agrees, what differs, and that nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock_runtime.server.shadow import shadower
from tests.unit.runtime.conftest import Start, StartAgent, StartTf
from tests.unit.runtime.forwarding import NONE, url, where
from tests.unit.runtime.grpc_client import Client, Kind, Outcome, iris_raw
from tests.unit.runtime.grpc_stub import Behaviour, Stub
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import SETOSA, VIRGINICA, AgentProcess, Reply, Server, call, iris_request
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_overload import wait_until
from tests.unit.runtime.test_shadow import pairs, shadow, state
from tests.unit.runtime.tf_grpc import PREDICTION, STATUS, TfGrpc, examples_request, pb, predict_request
from tests.unit.runtime.tf_serving import TfServing

# Nobody listens there, and nothing goes there over HTTP.
NOBODY = "http://127.0.0.1:9"


StartBefore = Callable[..., AgentProcess]
StartStub = Callable[[Behaviour], Stub]


@pytest.fixture
def served() -> list[TfServing]:
    """The servers of models behind the agents, in the order of their start."""
    return []


@pytest.fixture
def start_before(start_tf: StartTf, start_agent: StartAgent, served: list[TfServing]) -> Iterator[StartBefore]:
    """Start agents before both interfaces of one server, of some outputs of a model."""
    ports: list[TfGrpc] = []

    def start(model: str, *columns: str, as_content: bool = False, **env: str) -> AgentProcess:
        served.append(start_tf(model, *columns))
        ports.append(TfGrpc(served[-1], as_content=as_content))
        return start_agent(served[-1].url, "--upstream-grpc", ports[-1].address, **env).ready()

    yield start
    for port in ports:
        port.close()


@pytest.fixture
def start_stub() -> Iterator[StartStub]:
    """Start shadows that behave as told."""
    started: list[Stub] = []

    def start(behaviour: Behaviour) -> Stub:
        started.append(Stub(behaviour))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


def ask(agent: Server, method: str, request: Any, kind: Any, **metadata: Any) -> Outcome:
    with Client(agent.grpc_port) as client:
        path = method if method.startswith("/") else PREDICTION + method
        return client.call(path, request.SerializeToString(), kind, metadata=tuple(metadata.items()))


def predict(agent: Server, *rows: list[float], **spec: Any) -> Outcome:
    return ask(agent, "Predict", predict_request(*rows, **spec), pb.PredictResponse)


def predict_often(agent: Server, count: int) -> None:
    """Have as many calls answered."""
    payload = predict_request(SETOSA).SerializeToString()
    with Client(agent.grpc_port) as client:
        for _ in range(count):
            assert client.call(PREDICTION + "Predict", payload, pb.PredictResponse).code == Kind.OK


def predict_over_http(agent: Server) -> Reply:
    return call(agent.http_port, "POST", "/v1/models/m:predict", {"instances": [SETOSA]})


@pytest.mark.parametrize("as_content", [False, True])
def test_calls_are_copied_compared_and_counted_apart(
    start_before: StartBefore, served: list[TfServing], as_content: bool
) -> None:
    agent = start_before("iris", "probabilities", "label", as_content=as_content)
    other = start_before("iris", "probabilities", "label")
    reply = shadow(agent, **where(other), fraction=1)
    assert (reply.status, reply.json["shadow"]["to_grpc"]) == (200, f"127.0.0.1:{other.grpc_port}")
    assert reply.json["target_grpc"] == {"connected": False, "failing": False, "calls": 0}
    for _ in range(3):
        assert predict(agent, SETOSA, VIRGINICA).code == Kind.OK
    classify = examples_request(pb.ClassificationRequest, SETOSA, VIRGINICA)
    assert ask(agent, "Classify", classify, pb.ClassificationResponse).code == Kind.OK
    wait_until(lambda: pairs(agent) == {"agree": 4, "disagree": 0, "error": 0})
    assert state(agent)["counts"] == {"seen": 4, "agree": 4, "disagree": 0, "error": 0, "dropped": 0}
    assert state(agent)["target_grpc"] == {"connected": True, "failing": False, "calls": 0}
    assert [each.predictions for each in served] == [4, 4]
    assert requests_by_outcome(agent) == {**NONE, "ok": 4}
    assert requests_by_outcome(other) == NONE
    assert sample(other, "penstock_shadow_requests_total", outcome="ok") == 4
    assert "penstock_prediction_total{" not in other.metrics_text()


def test_regressions_are_compared_too(start_before: StartBefore) -> None:
    agent, other = (start_before("regression", "variable") for _ in range(2))
    shadow(agent, **where(other), fraction=1)
    assert ask(agent, "Regress", examples_request(pb.RegressionRequest, SETOSA), pb.RegressionResponse).code == Kind.OK
    wait_until(lambda: pairs(agent) == {"agree": 1, "disagree": 0, "error": 0})


@pytest.mark.parametrize("as_content", [False, True])
def test_what_differs_is_counted_by_output_and_a_tolerance_allows_it(
    start_before: StartBefore, tmp_path: Path, as_content: bool
) -> None:
    for name, factor in (("twice", 2.0), ("nearly", 2.001)):
        write_scaled(tmp_path / name, factor=factor)
    agent = start_before(str(tmp_path / "twice"), "y", as_content=as_content)
    other = start_before(str(tmp_path / "nearly"), "y", as_content=not as_content)
    shadow(agent, **where(other), fraction=1, tolerance={"absolute": 0, "relative": 1e-4})
    assert predict(agent, [1.0], [5.0]).code == Kind.OK
    wait_until(lambda: pairs(agent) == {"agree": 0, "disagree": 1, "error": 0})
    assert state(agent)["disagreements"] == {"y": 1}
    # To the same place, so by the same connection.
    shadow(agent, **where(other), fraction=1, tolerances={"y": {"relative": 1e-2}})
    assert state(agent)["target_grpc"]["connected"]
    assert predict(agent, [1.0], [5.0]).code == Kind.OK
    wait_until(lambda: pairs(agent) == {"agree": 1, "disagree": 1, "error": 0})
    assert state(agent)["disagreements"] == {}


def test_what_is_no_users_answer_or_names_a_version_is_not_copied(start_before: StartBefore) -> None:
    agent, other = (start_before("iris", "probabilities") for _ in range(2))
    shadow(agent, **where(other), fraction=1)
    assert predict(agent, SETOSA, version_label="stable").code == Kind.OK
    assert predict(agent, SETOSA, version={"value": 3}).code == Kind.OK
    assert predict(agent, [1.0]).code == Kind.INVALID_ARGUMENT
    assert predict(agent, SETOSA, model="other").code == Kind.NOT_FOUND
    marked = ask(agent, "Predict", predict_request(SETOSA), pb.PredictResponse, **{"penstock-shadow": "1"})
    assert marked.code == Kind.OK
    ask(agent, STATUS, pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="m")), pb.GetModelStatusResponse)
    assert ask(agent, "MultiInference", predict_request(SETOSA), pb.PredictResponse).code == Kind.UNIMPLEMENTED
    assert state(agent)["counts"]["seen"] == 0


def test_without_an_address_for_grpc_only_requests_over_http_are_copied(start_before: StartBefore) -> None:
    agent, other = (start_before("iris", "probabilities") for _ in range(2))
    reply = shadow(agent, to=url(other), fraction=1)
    assert (reply.json["target_grpc"], "to_grpc" in reply.json["shadow"]) == (None, False)
    assert predict(agent, SETOSA).code == Kind.OK
    assert predict_over_http(agent).status == 200
    wait_until(lambda: pairs(agent) == {"agree": 1, "disagree": 0, "error": 0})
    assert state(agent)["counts"]["seen"] == 1
    refused = shadow(agent, to_grpc=where(other)["to_grpc"], fraction=1)
    assert (refused.status, refused.json["error"][:32]) == (400, "shadow: 'to' must be a URL such ")


def test_a_model_server_sends_no_calls_there(iris: Server, start_server: Start, start_stub: StartStub) -> None:
    stub = start_stub(lambda *_: b"")
    server = start_server("iris").ready()
    assert shadow(server, to=url(iris), to_grpc=stub.address, fraction=1).json["target_grpc"] is None
    with Client(server.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == Kind.OK
    assert server.infer(iris_request(SETOSA)).status == 200
    wait_until(lambda: pairs(server) == {"agree": 2, "disagree": 0, "error": 0})
    assert stub.seen == []


def test_the_fraction_is_exact_of_both_protocols_together(start_before: StartBefore, served: list[TfServing]) -> None:
    agent, other = (start_before("iris", "probabilities") for _ in range(2))
    shadow(agent, **where(other), fraction=0.1)
    predict_often(agent, 150)
    for _ in range(50):
        assert predict_over_http(agent).status == 200
    wait_until(lambda: pairs(agent) == {"agree": 20, "disagree": 0, "error": 0})
    assert state(agent)["counts"]["seen"] == 200
    assert [each.predictions for each in served] == [200, 20]


def test_a_copy_has_message_and_metadata_as_they_came(start_before: StartBefore, start_stub: StartStub) -> None:
    payloads: list[bytes] = []

    def behave(payload: bytes, _context: grpc.ServicerContext) -> bytes:
        payloads.append(payload)
        return b""

    agent, stub = start_before("iris", "probabilities"), start_stub(behave)
    shadow(agent, to=NOBODY, to_grpc=stub.address, fraction=1)
    # With a field that nobody here knows.
    payload = predict_request(SETOSA, signature_name="serving_default").SerializeToString() + b"\x32\x02me"
    metadata = (("x-user", "u"), ("trace-bin", b"\x00\xff"))
    with Client(agent.grpc_port) as client:
        method = client.channel.unary_unary(PREDICTION + "Predict")
        method(payload, metadata=metadata, timeout=60)
    wait_until(lambda: state(agent)["disagreements"] == {"probabilities": 1})
    assert payloads == [payload]
    assert {*metadata, ("penstock-shadow", "1")} <= set(stub.seen[0])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Kind.UNAVAILABLE, "refused"),
        (Kind.RESOURCE_EXHAUSTED, "refused"),
        (Kind.UNIMPLEMENTED, "garbled"),
        (Kind.INVALID_ARGUMENT, "status INVALID_ARGUMENT"),
        (b"\xff", "unreadable"),
    ],
)
def test_what_cannot_be_compared_is_an_error(
    start_before: StartBefore, start_stub: StartStub, answer: bytes | grpc.StatusCode, reason: str
) -> None:
    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        if isinstance(answer, bytes):
            return answer
        return context.abort(answer, "no")

    agent = start_before("iris", "probabilities")
    shadow(agent, to=NOBODY, to_grpc=start_stub(behave).address, fraction=1)
    assert predict(agent, SETOSA).code == Kind.OK
    wait_until(lambda: state(agent)["error_reasons"] == {reason: 1})
    assert requests_by_outcome(agent) == {**NONE, "ok": 1}


def test_a_shadow_that_is_not_there_costs_users_nothing(start_before: StartBefore, start_stub: StartStub) -> None:
    agent, stub = start_before("iris", "probabilities"), start_stub(lambda *_: b"")
    shadow(agent, to=NOBODY, to_grpc=stub.address, fraction=1)
    stub.close()
    predict_often(agent, 40)
    wait_until(lambda: pairs(agent) == {"agree": 0, "disagree": 0, "error": 40})
    assert state(agent)["error_reasons"] == {"unreachable": 40}
    assert state(agent)["target_grpc"]["failing"]
    assert requests_by_outcome(agent) == {**NONE, "ok": 40}


def test_a_shadow_that_hangs_is_given_few_copies_and_the_rest_are_dropped(
    start_before: StartBefore, start_stub: StartStub
) -> None:
    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        stub.hang()
        return b""

    agent, stub = start_before("iris", "probabilities"), start_stub(behave)
    shadow(agent, to=NOBODY, to_grpc=stub.address, fraction=1)
    predict_often(agent, shadower.CONCURRENT + shadower.MAX_WAITING + 30)
    wait_until(lambda: len(stub.seen) == shadower.CONCURRENT)
    wait_until(lambda: sample(agent, "penstock_shadow_dropped_total") == 30)
    found = state(agent)
    assert (found["waiting"], found["counts"]["dropped"]) == (shadower.MAX_WAITING, 30)
    assert found["target_grpc"]["calls"] == shadower.CONCURRENT
    assert pairs(agent) == {"agree": 0, "disagree": 0, "error": 0}
    assert call(agent.admin_port, "DELETE", "/v2/shadow").status == 200
    assert state(agent) == {"shadow": None, "source": "admin", "generation": None}


def test_a_shadow_that_answers_too_late_is_an_error(start_before: StartBefore, start_stub: StartStub) -> None:
    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        stub.hang()
        return b""

    agent = start_before("iris", "probabilities", PENSTOCK_SERVING='{"timeout": "300ms"}')
    stub = start_stub(behave)
    shadow(agent, to=NOBODY, to_grpc=stub.address, fraction=1)
    assert predict(agent, SETOSA).code == Kind.OK
    wait_until(lambda: state(agent)["error_reasons"] == {"timeout": 1})
    assert stub.cancelled.wait(60)
    assert requests_by_outcome(agent) == {**NONE, "ok": 1}


def test_another_address_is_asked_from_the_next_call_on(start_before: StartBefore, start_stub: StartStub) -> None:
    agent = start_before("iris", "probabilities")
    first, second = (start_stub(lambda *_: b"") for _ in range(2))
    for stub in (first, second):
        shadow(agent, to=NOBODY, to_grpc=stub.address, fraction=1)
        assert predict(agent, SETOSA).code == Kind.OK
        wait_until(lambda: state(agent)["disagreements"] == {"probabilities": 1})
    assert (len(first.seen), len(second.seen)) == (1, 1)


def test_an_agent_ends_while_a_copy_is_under_way(start_before: StartBefore, start_stub: StartStub) -> None:
    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        stub.hang()
        return b""

    agent, stub = start_before("iris", "probabilities"), start_stub(behave)
    shadow(agent, to=NOBODY, to_grpc=stub.address, fraction=1)
    assert predict(agent, SETOSA).code == Kind.OK
    assert stub.entered.acquire(timeout=60)
    agent.terminate()
    assert agent.wait_exit() == 0
    assert stub.cancelled.wait(60)
