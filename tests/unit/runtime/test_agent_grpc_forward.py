"""Calls that an agent hands on to another revision's agent: how many, who counts them, and what stays."""

from __future__ import annotations

import pytest

from penstock_runtime.protocol.grpc import inference_pb2
from tests.unit.runtime.conftest import Start, StartAgent, StartStub, StartTf
from tests.unit.runtime.forwarding import NONE, forwarded, tell, tell_stub, told, url, where
from tests.unit.runtime.grpc_client import INFER, Client, Kind, Outcome, iris_raw, slow_request
from tests.unit.runtime.grpc_load import GrpcLoad
from tests.unit.runtime.process import SETOSA, AgentProcess, Server
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.test_agent_grpc import grpc_of
from tests.unit.runtime.test_overload import wait_until
from tests.unit.runtime.tf_grpc import PREDICTION, TfGrpc, pb, predict_request

Pair = tuple[AgentProcess, AgentProcess]


@pytest.fixture
def pair(iris: Server, start_agent: StartAgent) -> Pair:
    stable = start_agent(url(iris), *grpc_of(iris), PENSTOCK_REVISION="stable")
    canary = start_agent(url(iris), *grpc_of(iris), PENSTOCK_REVISION="canary")
    return stable.ready(), canary.ready()


def infer(agent: Server, request: inference_pb2.ModelInferRequest) -> Outcome:
    with Client(agent.grpc_port) as client:
        return client.infer(request)


async def test_the_share_is_exact_and_counted_by_who_answers(pair: Pair) -> None:
    stable, canary = pair
    assert tell(stable, **where(canary), share=0.2).status == 200
    load = GrpcLoad(stable.grpc_port)
    await load.run(300, clients=4)
    assert load.failures == []
    assert abs(load.answers["canary"] - 60) <= 2
    assert requests_by_outcome(canary) == {**NONE, "ok": load.answers["canary"]}
    assert requests_by_outcome(stable) == {**NONE, "ok": load.answers["stable"]}
    assert forwarded(stable) == {"forwarded": load.answers["canary"], "fallback": 0, "timeout": 0}


def test_an_id_belongs_to_who_predicted(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, **where(canary), share=1)
    answer = infer(stable, iris_raw(SETOSA))
    label = [{"id": answer.metadata["penstock-prediction-id"], "label": 0}]
    assert canary.feedback(label).json["accepted"] == 1


def test_versions_copies_and_other_models_stay(pair: Pair, start_stub: StartStub) -> None:
    stable, _ = pair
    stub = tell_stub(stable, start_stub, lambda *_: b"")
    assert infer(stable, iris_raw(SETOSA, model_version="1")).metadata["penstock-revision"] == "stable"
    assert infer(stable, iris_raw(SETOSA, model="other")).code == Kind.NOT_FOUND
    with Client(stable.grpc_port) as client:
        for mark in ("penstock-shadow", "penstock-forwarded"):
            _, call = client.channel.unary_unary(INFER).with_call(
                iris_raw(SETOSA).SerializeToString(), metadata=((mark, "1"),), timeout=60
            )
            assert dict(call.initial_metadata())["penstock-revision"] == "stable"
    assert stub.seen == []
    assert told(stable)["counts"]["seen"] == 0


def test_what_the_target_does_not_answer_the_upstream_does(pair: Pair, start_stub: StartStub) -> None:
    stable, _ = pair
    tell_stub(stable, start_stub, lambda _, context: context.abort(Kind.UNAVAILABLE, "not now"))
    answer = infer(stable, iris_raw(SETOSA))
    assert (answer.code, answer.metadata["penstock-revision"]) == (Kind.OK, "stable")
    assert requests_by_outcome(stable) == {**NONE, "ok": 1}
    assert forwarded(stable) == {"forwarded": 0, "fallback": 1, "timeout": 0}


def test_who_goes_away_or_waits_for_the_target_in_vain_is_not_counted_here(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    agent = start_agent(url(iris), *grpc_of(iris), PENSTOCK_SERVING='{"timeout": "300ms"}').ready()
    stub = tell_stub(agent, start_stub)
    assert infer(agent, iris_raw(SETOSA)).code == Kind.DEADLINE_EXCEEDED
    assert forwarded(agent) == {"forwarded": 0, "fallback": 0, "timeout": 1}
    # An address that did not answer in time is left alone for a while.
    wait_until(lambda: told(agent)["target_grpc"]["calls"] == 0)
    tell(agent)
    stub = tell_stub(agent, start_stub)
    with Client(agent.grpc_port) as client:
        call = client.start(iris_raw(SETOSA))
        wait_until(lambda: len(stub.seen) == 1)
        call.cancel()
        assert stub.cancelled.wait(60)
    wait_until(lambda: forwarded(agent) == {"forwarded": 1, "fallback": 0, "timeout": 1})
    assert requests_by_outcome(agent) == NONE


def test_what_is_handed_on_is_finished_at_the_end(iris: Server, start_server: Start, start_agent: StartAgent) -> None:
    slow = start_server("slow").ready()
    agent = start_agent(url(iris), *grpc_of(iris), "--drain-seconds", "0").ready()
    tell(agent, **where(slow), share=1)
    with Client(agent.grpc_port) as client:
        call = client.start(slow_request(4000))
        wait_until(lambda: slow.pending == 1)
        agent.terminate()
        assert call.result().model_name == "m"
    assert agent.wait_exit() == 0


def test_calls_to_tensorflow_serving_are_handed_on_too(start_tf: StartTf, start_agent: StartAgent) -> None:
    ports, agents = [], []
    try:
        for revision in ("stable", "canary"):
            served = start_tf("iris", "probabilities")
            ports.append(TfGrpc(served))
            address = ("--upstream-grpc", ports[-1].address)
            agents.append(start_agent(served.url, *address, PENSTOCK_REVISION=revision).ready())
        stable, canary = agents
        assert tell(stable, **where(canary), share=1).status == 200
        with Client(stable.grpc_port) as client:
            for request, expected in (
                (predict_request(SETOSA), "canary"),
                (predict_request(SETOSA, version_label="stable"), "stable"),
                (predict_request(SETOSA, version={"value": 3}), "stable"),
            ):
                answer = client.call(PREDICTION + "Predict", request.SerializeToString(), pb.PredictResponse)
                assert (answer.code, answer.metadata["penstock-revision"]) == (Kind.OK, expected)
        assert requests_by_outcome(canary) == {**NONE, "ok": 1}
        assert requests_by_outcome(stable) == {**NONE, "ok": 2}
    finally:
        for port in ports:
            port.close()
