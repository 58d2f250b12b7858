"""An agent's gRPC port before real servers: what passes, what is counted, and what happens where there is no answer."""

from __future__ import annotations

import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.agent.agent import Agent
from penstock_runtime.server.agent.calls import AgentServices, GrpcUpstream
from penstock_runtime.server.agent.paths import NO_COMMANDS
from penstock_runtime.server.agent.settings import add_arguments, read_settings
from penstock_runtime.server.agent.upstream import Readiness
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.grpc.listener import GrpcListener
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.traffic import Traffic
from tests.unit.runtime.conftest import Start, StartAgent
from tests.unit.runtime.forwarding import NONE, url
from tests.unit.runtime.grpc_client import INFER, SERVICE, Client, Kind, iris_raw, iris_typed, slow_request
from tests.unit.runtime.grpc_stub import Behaviour, Stub
from tests.unit.runtime.load import until
from tests.unit.runtime.process import PORTS, SETOSA, VIRGINICA, AgentProcess, Server
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_overload import wait_until
from tests.unit.runtime.test_workers import follow_workers

ID = "penstock-prediction-id"
OK = pb.ModelInferResponse(model_name="m").SerializeToString()
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
StartStub = Callable[..., Stub]


def grpc_of(server: Server) -> tuple[str, str]:
    return "--upstream-grpc", f"127.0.0.1:{server.grpc_port}"


@pytest.fixture
def agent(iris: Server, start_agent: StartAgent) -> AgentProcess:
    return start_agent(url(iris), *grpc_of(iris), PENSTOCK_REVISION="r1").ready()


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Client]:
    with Client(agent.grpc_port) as client:
        yield client


@pytest.fixture
def start_stub() -> Iterator[StartStub]:
    started: list[Stub] = []

    def start(behaviour: Behaviour, port: int = 0) -> Stub:
        started.append(Stub(behaviour, port))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


def start_hanging(start_stub: StartStub) -> Stub:
    def behave(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        stub.hang()
        return OK

    stub = start_stub(behave)
    return stub


def before_stub(iris: Server, start_agent: StartAgent, stub: Stub, **env: str) -> AgentProcess:
    """An agent whose upstream answers over gRPC as a test tells it."""
    return start_agent(url(iris), "--upstream-grpc", stub.address, PENSTOCK_REVISION="r1", **env).ready()


def label(agent: Server, answer: Any, value: object) -> int:
    assert answer.code == Kind.OK
    accepted: int = agent.feedback([{"id": answer.metadata[ID], "label": value}]).json["accepted"]
    return accepted


def feedback_counts(agent: Server) -> tuple[float, ...]:
    return tuple(sample(agent, "penstock_feedback_total", result=result, cohort="none")
                 for result in ("correct", "incorrect"))  # fmt: skip


def test_an_answer_passes_whole_with_the_agents_own_revision_and_id(client: Client, iris: Server) -> None:
    request = iris_raw(SETOSA, id="7")
    with Client(iris.grpc_port) as direct:
        theirs = direct.infer(request)
    ours = client.infer(request)
    assert (ours.code, ours.answer) == (Kind.OK, theirs.answer)
    assert (ours.metadata["penstock-revision"], theirs.metadata["penstock-revision"]) == ("r1", "none")
    assert ours.metadata.keys() == theirs.metadata.keys()
    assert ours.metadata[ID] != theirs.metadata[ID]


def test_labels_are_compared_with_raw_and_typed_answers(agent: AgentProcess, client: Client) -> None:
    assert label(agent, client.infer(iris_raw(SETOSA, VIRGINICA)), [0, 2]) == 1
    assert label(agent, client.infer(iris_typed(SETOSA)), 2) == 1
    assert feedback_counts(agent) == (2, 1)
    assert sample(agent, "penstock_prediction_total", **{"class": "0"}) == 2
    without = client.infer(iris_raw(SETOSA, outputs=["probabilities"]))
    assert label(agent, without, 0) == 0
    assert agent.feedback([{"id": without.metadata[ID], "correct": True}]).json["accepted"] == 1


def test_counted_is_inference_with_this_model_and_nothing_else(agent: AgentProcess, client: Client) -> None:
    assert client.infer(iris_raw(SETOSA)).code == Kind.OK
    assert client.infer(iris_raw(SETOSA, model_version="1")).code == Kind.OK
    assert client.infer(iris_raw(SETOSA, model_version="9")).code == Kind.NOT_FOUND
    assert client.infer(iris_raw([1.0])).code == Kind.INVALID_ARGUMENT
    assert client.call(INFER, b"\xff\xff", pb.ModelInferResponse).code == Kind.INVALID_ARGUMENT
    assert requests_by_outcome(agent) == {**NONE, "ok": 2, "client_error": 3}
    assert sample(agent, "penstock_request_duration_seconds_count") == 2
    assert sample(agent, "penstock_inference_duration_seconds_count") == 2
    other = client.infer(iris_raw(SETOSA, model="other"))
    assert (other.code, other.metadata) == (Kind.NOT_FOUND, {})
    assert client.ask("ModelMetadata", pb.ModelMetadataRequest(name="m")).answer.name == "m"
    assert client.ask("ModelReady", pb.ModelReadyRequest(name="m")).answer.ready
    assert client.ask("ModelStatistics", pb.ModelStatisticsRequest(name="m")).code == Kind.OK
    assert client.ask("RepositoryIndex", pb.RepositoryIndexRequest()).code == Kind.OK
    assert requests_by_outcome(agent) == {**NONE, "ok": 2, "client_error": 3}


def test_what_does_not_pass_is_said(client: Client) -> None:
    services = "inference.GRPCInferenceService, tensorflow.serving.PredictionService, tensorflow.serving.ModelService"
    for path, why in (
        ("/other.Service/Method", f"an agent passes on only unary methods of {services}"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
         "an agent does not answer reflection; give your client the .proto files of the server behind it"),
    ):  # fmt: skip
        answer = client.call(path, b"", pb.ModelInferResponse)
        assert (answer.code, answer.details) == (Kind.UNIMPLEMENTED, why)
    stream = client.channel.stream_stream(SERVICE + "ModelStreamInfer")(iter((b"",)), timeout=60)
    with pytest.raises(grpc.RpcError) as failed:
        next(stream)
    error: Any = failed.value
    assert (error.code(), error.details()) == (
        Kind.UNIMPLEMENTED, "streams do not pass through an agent; call ModelInfer for each request instead",
    )  # fmt: skip


def test_commands_do_not_pass(client: Client) -> None:
    for path in (
        SERVICE + "RepositoryModelLoad", SERVICE + "SystemSharedMemoryRegister", SERVICE + "LogSettings",
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    ):  # fmt: skip
        answer = client.call(path, b"", pb.ModelInferResponse)
        assert (answer.code, answer.details) == (Kind.PERMISSION_DENIED, NO_COMMANDS)


def test_a_copy_of_another_servers_request_is_counted_apart(agent: AgentProcess, client: Client) -> None:
    method = client.channel.unary_unary(INFER, None, pb.ModelInferResponse.FromString)
    _, call = method.with_call(iris_raw(SETOSA).SerializeToString(), metadata=(("penstock-shadow", "1"),))
    assert ID not in dict(call.initial_metadata())
    assert requests_by_outcome(agent) == NONE
    assert sample(agent, "penstock_shadow_requests_total", outcome="ok") == 1


def test_metadata_passes_both_ways_but_for_what_is_the_connections_or_our_own(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-first", "1"), ("penstock-revision", "theirs")))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"), (ID, "theirs")))
        return OK

    stub = start_stub(behave)
    with Client(before_stub(iris, start_agent, stub).grpc_port) as client:
        method = client.channel.unary_unary(INFER)
        sent = (("x-user", "u"), ("traceparent", "00-0-0-00"), ("authorization", "Bearer t"), ("x-raw-bin", b"\x00"))
        raw, call = method.with_call(iris_raw(SETOSA).SerializeToString(), metadata=sent, timeout=60)
    assert raw == OK
    assert set(sent) <= set(stub.seen[0])
    initial = {item.key: item.value for item in call.initial_metadata()}
    assert initial.keys() == {"x-first", "penstock-revision", ID}
    assert (initial["x-first"], initial["penstock-revision"]) == ("1", "r1")
    assert [tuple(item) for item in call.trailing_metadata()] == [("x-last-bin", b"\x00\xff")]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (Kind.CANCELLED, "client_error"),
        (Kind.UNKNOWN, "server_error"),
        (Kind.INVALID_ARGUMENT, "client_error"),
        (Kind.DEADLINE_EXCEEDED, "timeout"),
        (Kind.NOT_FOUND, "client_error"),
        (Kind.PERMISSION_DENIED, "client_error"),
        (Kind.RESOURCE_EXHAUSTED, "rejected"),
        (Kind.FAILED_PRECONDITION, "client_error"),
        (Kind.UNIMPLEMENTED, "server_error"),
        (Kind.INTERNAL, "server_error"),
        (Kind.UNAVAILABLE, "rejected"),
        (Kind.DATA_LOSS, "server_error"),
        (Kind.UNAUTHENTICATED, "client_error"),
    ],
)
def test_every_status_passes_and_says_what_is_counted(
    iris: Server, start_agent: StartAgent, start_stub: StartStub, code: grpc.StatusCode, outcome: str
) -> None:
    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", b"more"),))
        context.abort(code, "wäre was")
        raise AssertionError

    agent = before_stub(iris, start_agent, start_stub(behave))
    with Client(agent.grpc_port) as client:
        method = client.channel.unary_unary(INFER)
        with pytest.raises(grpc.RpcError) as failed:
            method(iris_raw(SETOSA).SerializeToString(), timeout=60)
    error: Any = failed.value
    assert (error.code(), error.details()) == (code, "wäre was")
    assert ("grpc-status-details-bin", b"more") in [tuple(item) for item in error.trailing_metadata()]
    metadata = {item.key: item.value for item in (*error.initial_metadata(), *error.trailing_metadata())}
    assert metadata["penstock-revision"] == "r1"
    assert ID not in metadata
    assert requests_by_outcome(agent) == {**NONE, outcome: 1}


def test_large_messages_pass_and_too_large_ones_do_not(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    large = pb.ModelInferResponse(raw_output_contents=[bytes(8 * 2**20)]).SerializeToString()
    stub = start_stub(lambda *_: large)
    agent = before_stub(iris, start_agent, stub, PENSTOCK_SERVING='{"maxBodyBytes": "1Ki"}')
    with Client(agent.grpc_port) as client:
        assert client.channel.unary_unary(INFER)(iris_raw(SETOSA).SerializeToString(), timeout=60) == large
        assert client.infer(iris_raw(*[SETOSA] * 100)).code == Kind.RESOURCE_EXHAUSTED
    wait_until(lambda: requests_by_outcome(agent) == {**NONE, "ok": 1, "client_error": 1})
    assert len(stub.seen) == 1


def test_where_there_is_no_upstream_the_client_hears_so_until_it_is_back(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    stub = start_stub(lambda *_: OK)
    agent = before_stub(iris, start_agent, stub)
    with Client(agent.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == Kind.OK
        stub.close()
        answer = client.infer(iris_raw(SETOSA))
        assert (answer.code, answer.details) == (Kind.UNAVAILABLE, "the upstream server cannot be reached")
        assert answer.metadata == {"penstock-revision": "r1"}
        assert requests_by_outcome(agent) == {**NONE, "ok": 1, "rejected": 1}
        start_stub(lambda *_: OK, stub.port)
        wait_until(lambda: client.infer(iris_raw(SETOSA)).code == Kind.OK)


def test_an_upstream_that_does_not_answer_costs_the_requests_time_and_is_told(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    stub = start_hanging(start_stub)
    agent = before_stub(iris, start_agent, stub, PENSTOCK_SERVING='{"timeout": "300ms"}')
    with Client(agent.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == Kind.DEADLINE_EXCEEDED
    assert stub.cancelled.wait(60)
    assert requests_by_outcome(agent) == {**NONE, "timeout": 1}


def test_the_clients_deadline_and_its_going_reach_the_upstream(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    left: list[float] = []

    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        stub.hang()
        return OK

    stub = start_stub(behave)
    agent = before_stub(iris, start_agent, stub)
    with Client(agent.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA), timeout=1.0).code == Kind.DEADLINE_EXCEEDED
        assert 0 < left[0] <= 1.0
        wait_until(lambda: requests_by_outcome(agent) == {**NONE, "timeout": 1})
        stub.cancelled.clear()
        call = client.start(iris_raw(SETOSA))
        wait_until(lambda: len(left) == 2)
        call.cancel()
        assert stub.cancelled.wait(60)
        wait_until(lambda: requests_by_outcome(agent) == {**NONE, "timeout": 1, "client_error": 1})


def test_more_calls_than_may_wait_are_refused(iris: Server, start_agent: StartAgent, start_stub: StartStub) -> None:
    stub = start_hanging(start_stub)
    agent = before_stub(iris, start_agent, stub, PENSTOCK_SERVING='{"maxQueue": 2}')
    with Client(agent.grpc_port) as client:
        calls = [client.start(iris_raw(SETOSA)) for _ in range(2)]
        wait_until(lambda: len(stub.seen) == 2)
        assert client.infer(iris_raw(SETOSA)).code == Kind.RESOURCE_EXHAUSTED
        assert requests_by_outcome(agent) == {**NONE, "rejected": 1}
        stub.released.set()
        assert [call.result().model_name for call in calls] == ["m", "m"]
    assert requests_by_outcome(agent) == {**NONE, "rejected": 1, "ok": 2}


def test_health_is_the_agents_own_and_follows_the_upstream(start_server: Start, start_agent: StartAgent) -> None:
    server = start_server("iris").ready()
    agent = start_agent(url(server), *grpc_of(server), "--drain-seconds", "5").ready()
    with Client(agent.grpc_port) as client:
        watch = client.watch("m")
        assert [client.check(name).answer.status for name in ("", "m")] == [SERVING, SERVING]
        assert client.check("other").code == Kind.NOT_FOUND
        assert client.ask("ServerLive").answer.live
        assert client.ask("ServerReady").answer.ready
        assert next(watch).status == SERVING
        server.kill()
        assert next(watch).status == NOT_SERVING
        assert client.check().answer.status == NOT_SERVING
        assert not client.ask("ServerReady").answer.ready
        watch.cancel()


def test_what_is_under_way_is_finished_and_the_agent_not_serving_meanwhile(
    start_server: Start, start_agent: StartAgent
) -> None:
    server = start_server("slow").ready()
    agent = start_agent(url(server), *grpc_of(server), "--drain-seconds", "1").ready()
    with Client(agent.grpc_port) as client:
        slow = client.start(slow_request(4000))
        wait_until(lambda: server.pending == 1)
        agent.terminate()
        agent.wait_log("draining")
        assert client.check().answer.status == NOT_SERVING
        assert client.infer(slow_request(0)).code == Kind.OK
        assert slow.result().model_name == "m"
    assert agent.wait_exit() == 0
    assert next(line for line in agent.log if line["msg"] == "stopped")["finished"]


def test_what_takes_too_long_at_the_end_is_told_so(
    iris: Server, start_agent: StartAgent, start_stub: StartStub
) -> None:
    stub = start_hanging(start_stub)
    agent = start_agent(url(iris), "--upstream-grpc", stub.address, "--drain-seconds", "0", "--shutdown-seconds", "0.2")
    with Client(agent.ready().grpc_port) as client:
        call = client.start(iris_raw(SETOSA))
        wait_until(lambda: len(stub.seen) == 1)
        agent.terminate()
        assert (call.code(), call.details()) == (Kind.UNAVAILABLE, "the server is shutting down")
    assert agent.wait_exit() == 0
    assert stub.cancelled.wait(60)


def test_workers_share_the_port_and_their_calls_are_summed(iris: Server, start_agent: StartAgent) -> None:
    agent = follow_workers(start_agent(url(iris), *grpc_of(iris), "--workers", "3", "--drain-seconds", "0"))
    for _ in range(20):
        with Client(agent.grpc_port) as client:
            assert client.infer(iris_raw(SETOSA)).code == Kind.OK
    assert requests_by_outcome(agent) == {**NONE, "ok": 20}


def test_without_an_upstream_for_it_there_is_no_grpc(iris: Server, start_agent: StartAgent) -> None:
    assert start_agent(url(iris)).ready().grpc_port is None


def test_what_the_data_port_asks_for_is_asked_for_over_grpc_too(
    iris: Server, start_agent: StartAgent, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("open-sesame")
    agent = start_agent(url(iris), *grpc_of(iris), "--token-file", str(tmp_path / "tokens")).ready()
    with Client(agent.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == Kind.UNAUTHENTICATED
        assert client.ask("ModelMetadata", pb.ModelMetadataRequest(name="m")).code == Kind.UNAUTHENTICATED
        assert client.check().answer.status == SERVING
        allowed = (("authorization", "Bearer open-sesame"),)
        client.channel.unary_unary(INFER)(iris_raw(SETOSA).SerializeToString(), metadata=allowed, timeout=60)
    assert requests_by_outcome(agent) == {**NONE, "ok": 1}


def test_answers_that_cannot_be_read_pass(iris: Server, start_agent: StartAgent, start_stub: StartStub) -> None:
    answer = pb.ModelInferResponse(model_name="m")
    answer.outputs.add(name="label", datatype="INT64", shape=[2])
    answer.raw_output_contents.append(np.array([1], np.int64).tobytes())
    raw = answer.SerializeToString()
    agent = before_stub(iris, start_agent, start_stub(lambda *_: raw))
    with Client(agent.grpc_port) as client:
        reply = client.infer(iris_raw(SETOSA))
    assert reply.answer == answer
    assert label(agent, reply, 1) == 0
    assert requests_by_outcome(agent) == {**NONE, "ok": 1}


def test_a_deadline_that_passes_before_the_message_has_come_is_a_timeout(agent: AgentProcess, client: Client) -> None:
    silence = threading.Event()
    call = client.channel.stream_unary(INFER).future(iter(silence.wait, True), timeout=0.5)
    assert call.code() == Kind.DEADLINE_EXCEEDED
    silence.set()
    wait_until(lambda: requests_by_outcome(agent) == {**NONE, "timeout": 1})


async def test_a_call_whose_message_does_not_come_is_broken_off(tmp_path: Path) -> None:
    arguments = [*PORTS, "--upstream", "http://127.0.0.1:1", "--upstream-grpc", "127.0.0.1:1", "--model-name", "m"]
    parser = ArgumentParser()
    add_arguments(parser)
    settings = read_settings(parser.parse_args(arguments), {})
    readiness = Readiness(settings.upstream, "m", None)
    agent = Agent(settings, Keys(tmp_path), settings.feedback, "none")
    upstream = GrpcUpstream(Address("127.0.0.1", 1), settings.serving, readiness)
    services = AgentServices(agent, upstream, readiness, Traffic(settings.serving, list), settings.serving)
    listener = GrpcListener(services, settings, 0, Security(settings.security))
    listener.start()
    silence = threading.Event()
    with Client(listener.port) as client:
        call = client.channel.stream_unary(INFER).future(iter(silence.wait, True), timeout=60)
        await until(lambda: listener.in_flight == 1)
        services.inferences.sweep(time.perf_counter() - 60)
        assert listener.in_flight == 1
        services.inferences.sweep(time.perf_counter())
        await until(lambda: listener.in_flight == 0)
        assert call.code() == Kind.CANCELLED
        silence.set()
    assert agent.model.metrics.requests["client_error"] == 1
    listener.close()
    upstream.close()
    readiness.close()
