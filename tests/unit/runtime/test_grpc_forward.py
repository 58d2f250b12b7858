"""Forwarding over gRPC between real servers: who answers, who counts, and what is chosen."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.forward.setting import parse_forwarding
from penstock_runtime.server.settings import SettingsError
from tests.unit.runtime.conftest import Pair, Start, StartProcess, StartStub
from tests.unit.runtime.forwarding import NONE, NOWHERE, forwarded, start_target, tell, tell_stub, told, where
from tests.unit.runtime.grpc_client import INFER, Client, iris_raw, iris_typed, slow_request, typed, typed_request
from tests.unit.runtime.http2 import call_raw
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import SETOSA, Server, iris_request
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.targets import Target, answering, response
from tests.unit.runtime.test_overload import wait_until


def ask(server: Server, request: pb.ModelInferRequest | None = None, **metadata: str) -> Any:
    """Return the outcome of one call."""
    with Client(server.grpc_port) as client:
        method = client.channel.unary_unary(INFER, None, pb.ModelInferResponse.FromString)
        payload = (request or iris_raw(SETOSA)).SerializeToString()
        future = method.future(payload, timeout=60, metadata=tuple(metadata.items()))
        future.exception()
        return future


def revision(server: Server, request: pb.ModelInferRequest | None = None, **metadata: str) -> str:
    """Return the revision that answers a call."""
    done = ask(server, request, **metadata)
    assert done.code() == StatusCode.OK, done.details()
    return str(dict(done.initial_metadata())["penstock-revision"])


def test_a_forwarded_call_is_answered_and_counted_by_its_receiver(pair: Pair) -> None:
    stable, canary = pair
    assert tell(stable, **where(canary), share=1).status == 200
    done = ask(stable, iris_raw(SETOSA, id="7"))
    metadata = dict(done.initial_metadata())
    assert (done.result().id, metadata["penstock-revision"]) == ("7", "canary")
    assert requests_by_outcome(stable) == NONE
    assert requests_by_outcome(canary) == {**NONE, "ok": 1}
    assert forwarded(stable) == {"forwarded": 1, "fallback": 0, "timeout": 0}
    assert forwarded(canary)["forwarded"] == 0
    assert sample(stable, "penstock_forward_duration_seconds_count") == 1
    assert sample(stable, "penstock_request_duration_seconds_count") == 0
    feedback = canary.feedback([{"id": metadata["penstock-prediction-id"], "label": 0}])
    assert feedback.json["accepted"] == 1


def test_what_the_target_says_of_a_bad_request_is_passed_on_and_counted_there(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, **where(canary), share=1)
    bad = iris_raw(SETOSA[:3])
    direct, relayed = ask(canary, bad), ask(stable, bad)
    for done in (direct, relayed):
        assert done.code() == StatusCode.INVALID_ARGUMENT
    assert relayed.details() == direct.details()
    assert dict(relayed.initial_metadata()) == {"penstock-revision": "canary"}
    assert requests_by_outcome(canary)["client_error"] == 2
    assert requests_by_outcome(stable) == NONE


def test_bytes_and_metadata_pass_unchanged_both_ways(iris: Server, start_stub: StartStub) -> None:
    seen: list[bytes] = []

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(request)
        context.send_initial_metadata((("early", "1"),))
        context.set_trailing_metadata((("late-bin", b"\x00"),))
        return pb.ModelInferResponse(id="there").SerializeToString()

    stub = tell_stub(iris, start_stub, behave)
    # A field that is not known here is the target's to read.
    request = pb.ModelInferRequest.FromString(iris_raw(SETOSA).SerializeToString() + b"\xfa\x3e\x01x")
    done = ask(iris, request, authorization="Bearer x", **{"x-user": "a"})
    tell(iris)
    assert done.result().id == "there"
    assert (dict(done.initial_metadata()), dict(done.trailing_metadata())) == ({"early": "1"}, {"late-bin": b"\x00"})
    assert seen == [request.SerializeToString()]
    assert {("authorization", "Bearer x"), ("x-user", "a"), ("penstock-forwarded", "1")} <= set(stub.seen[0])


def test_metadata_that_no_client_may_send_stops_here(iris: Server, start_stub: StartStub) -> None:
    stub = tell_stub(iris, start_stub, lambda *_: b"")
    message = iris_raw(SETOSA).SerializeToString()
    call_raw(iris.grpc_port, INFER, message, [(b"x-a", b"a\r\nx-more: b"), (b"x-b", b"\xc3\xa5"), (b"x-c", b"c")])
    tell(iris)
    assert {name for name, _ in stub.seen[0]} == {"penstock-forwarded", "user-agent", "x-c"}


def test_a_call_makes_one_hop_even_in_a_circle(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, **where(canary), share=1)
    tell(canary, **where(stable), share=1)
    assert [revision(stable), revision(canary)] == ["canary", "stable"]
    assert revision(stable, None, **{"penstock-forwarded": "1"}) == "stable"


def test_without_an_address_for_grpc_calls_stay_and_are_not_of_the_share(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, to=where(canary)["to"], share=0.5)
    assert {revision(stable) for _ in range(10)} == {"stable"}
    state = told(stable)
    assert state["counts"]["seen"] == 0
    assert state["target_grpc"] is None
    assert "to_grpc" not in state["forward"]
    assert requests_by_outcome(stable)["ok"] == 10


def test_requests_over_both_protocols_are_one_traffic_of_which_the_share_is_exact(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, **where(canary), share=0.25)
    over_http = over_grpc = 0
    with Client(stable.grpc_port) as client:
        # Three of one for one of the other, in step: each block of 100 has both.
        for number in range(400):
            if number % 4:
                over_grpc += client.infer(iris_raw(SETOSA)).metadata["penstock-revision"] == "canary"
            else:
                over_http += stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    assert over_http + over_grpc == 100
    assert min(over_http, over_grpc) > 0
    state = told(stable)
    assert state["counts"] == {"seen": 400, "forwarded": 100, "fallback": 0, "timeout": 0}
    assert state["target_grpc"] == {"connected": True, "failing": False, "calls": 0}
    assert state["forward"]["to_grpc"] == where(canary)["to_grpc"]


def test_all_calls_with_one_value_of_the_header_go_the_same_way_over_either_protocol(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, **where(canary), share=0.5, by={"header": "X-User"})
    users = [f"user {number}" for number in range(40)]
    over_grpc = [revision(stable, None, **{"x-user": user}) for user in users]
    over_http = [stable.infer(iris_request(SETOSA), **{"x-user": user}).headers["penstock-revision"] for user in users]
    assert over_grpc == over_http
    assert set(over_grpc) == {"stable", "canary"}


def test_calls_that_this_server_would_refuse_stay(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, **where(canary), share=1)
    assert ask(stable, iris_raw(SETOSA, model_version="9")).code() == StatusCode.NOT_FOUND
    assert ask(stable, iris_typed(SETOSA, model="other")).code() == StatusCode.NOT_FOUND
    assert forwarded(stable)["forwarded"] == 0
    assert requests_by_outcome(stable)["client_error"] == 1


def one(x: float, **more: Any) -> pb.ModelInferRequest:
    return typed_request(typed("x", "FP32", [1, 1], [x]), **more)


def test_a_version_is_this_servers_and_not_told_to_the_target(
    start_server: Start, start_stub: StartStub, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        write_scaled(tmp_path / "model" / version, factor=int(version))
    server = start_server(str(tmp_path / "model"), "--versions", "all").ready()
    seen: list[bytes] = []

    def behave(request: bytes, _: grpc.ServicerContext) -> bytes:
        seen.append(request)
        return b""

    tell_stub(server, start_stub, behave)
    assert ask(server, one(1.0, model_version="2", id="a")).code() == StatusCode.OK
    assert seen == [one(1.0, id="a").SerializeToString()]
    here = ask(server, one(1.0, model_version="1")).result()
    assert list(here.outputs[0].contents.fp32_contents) == [1.0]


ABORTS = {
    "unavailable": (StatusCode.UNAVAILABLE, "refused"),
    "overloaded": (StatusCode.RESOURCE_EXHAUSTED, "refused"),
    "no such service": (StatusCode.UNIMPLEMENTED, "garbled"),
    "no answer of a server of ours": (StatusCode.UNKNOWN, "garbled"),
    "one of several connections ends": (StatusCode.CANCELLED, "cut off"),
}


@pytest.mark.parametrize("name", ABORTS)
def test_what_is_no_answer_is_answered_here(start_server: Start, start_stub: StartStub, name: str) -> None:
    code, reason = ABORTS[name]
    server = start_server("iris", PENSTOCK_REVISION="stable").ready()

    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "x")
        raise AssertionError

    stub = tell_stub(server, start_stub, behave)
    assert revision(server) == "stable"
    assert len(stub.seen) == 1
    state = told(server)
    assert (state["counts"]["fallback"], state["fallback_reasons"]) == (1, {reason: 1})
    assert requests_by_outcome(server) == {**NONE, "ok": 1}
    assert state["target_grpc"]["failing"] == (reason == "garbled")


def test_a_failure_that_the_target_tells_is_its_own(start_server: Start, start_stub: StartStub) -> None:
    server = start_server("iris").ready()

    def behave(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("penstock-revision", "canary"),))
        context.abort(StatusCode.INTERNAL, "the model failed")
        raise AssertionError

    tell_stub(server, start_stub, behave)
    done = ask(server)
    assert (done.code(), done.details()) == (StatusCode.INTERNAL, "the model failed")
    assert forwarded(server)["forwarded"] == 1
    assert requests_by_outcome(server) == NONE


def test_a_target_that_is_not_there_is_left_alone_after_the_first_try(
    start_server: Start, targets: list[Target]
) -> None:
    server = start_server("iris", PENSTOCK_REVISION="stable").ready()
    # One that takes connections and speaks HTTP/1.1 to those who speak gRPC.
    other = start_target(targets, answering(response(200, b"x")))
    for to_grpc, seconds in (("127.0.0.1:9", 2.0), (f"127.0.0.1:{other.port}", 3.0)):
        tell(server, to=NOWHERE, to_grpc=to_grpc, share=1)
        begun = time.monotonic()
        assert {revision(server) for _ in range(20)} == {"stable"}
        assert time.monotonic() - begun < seconds
        state = told(server)
        assert state["counts"] == {"seen": 20, "forwarded": 0, "fallback": 20, "timeout": 0}
        assert state["fallback_reasons"] == {"unreachable": 20}
        assert state["target_grpc"] == {"connected": False, "failing": True, "calls": 0}


def test_a_target_that_hangs_is_a_timeout_of_nobodys(start_server: Start, start_stub: StartStub) -> None:
    server = start_server("iris", PENSTOCK_REVISION="stable", PENSTOCK_SERVING='{"timeout":"1s"}').ready()

    stub = tell_stub(server, start_stub)
    begun = time.monotonic()
    done = ask(server)
    assert (done.code(), done.details()) == (StatusCode.DEADLINE_EXCEEDED, "no answer within 1 s")
    assert 1.5 < time.monotonic() - begun < 10
    assert forwarded(server) == {"forwarded": 0, "fallback": 0, "timeout": 1}
    assert requests_by_outcome(server) == NONE
    assert stub.cancelled.wait(10)
    # It is left alone for a while.
    assert revision(server) == "stable"
    assert told(server)["fallback_reasons"] == {"unreachable": 1}


def test_a_client_that_leaves_is_told_to_the_target(start_server: Start, start_stub: StartStub) -> None:
    server = start_server("iris").ready()

    stub = tell_stub(server, start_stub)
    with Client(server.grpc_port) as client:
        call = client.start(iris_raw(SETOSA))
        assert stub.entered.acquire(timeout=20)
        call.cancel()
        assert stub.cancelled.wait(20)
    wait_until(lambda: forwarded(server)["forwarded"] == 1)
    assert requests_by_outcome(server) == NONE
    assert not told(server)["target_grpc"]["failing"]


def test_the_clients_deadline_is_the_targets(pair: Pair, start_server: Start) -> None:
    canary = start_server("slow", PENSTOCK_REVISION="canary").ready()
    stable = start_server("slow", PENSTOCK_REVISION="stable").ready()
    tell(stable, **where(canary), share=1)
    with Client(stable.grpc_port) as client:
        assert client.infer(slow_request(10**9), timeout=0.5).code == StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: forwarded(stable)["forwarded"] == 1)
    wait_until(lambda: requests_by_outcome(canary)["timeout"] == 1)
    assert requests_by_outcome(stable) == NONE


def test_forwards_under_way_take_no_place_here(start_server: Start, start_stub: StartStub) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxQueue":0,"threads":1,"timeout":"30s"}').ready()

    stub = tell_stub(server, start_stub)
    with Client(server.grpc_port) as client, ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(client.infer, iris_raw(SETOSA)) for _ in range(20)]
        wait_until(lambda: len(stub.seen) == 20)
        assert told(server)["target_grpc"]["calls"] == 20
        tell(server)
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
        stub.released.set()
        assert {job.result().code for job in jobs} == {StatusCode.OK}, "those under way end as they would have"


def test_a_forward_in_flight_is_finished_before_the_end(start_process: StartProcess, start_server: Start) -> None:
    canary = start_server("slow", PENSTOCK_REVISION="canary").ready()
    stable = start_process("slow", "--drain-seconds", "0", PENSTOCK_REVISION="stable").ready()
    tell(stable, **where(canary), share=1)
    with Client(stable.grpc_port) as client, ThreadPoolExecutor(1) as pool:
        job = pool.submit(client.infer, slow_request(3000))
        wait_until(lambda: told(stable)["target_grpc"]["calls"] == 1 and canary.pending == 1)
        stable.terminate()
        outcome = job.result()
    assert (outcome.code, outcome.metadata["penstock-revision"]) == (StatusCode.OK, "canary")
    assert stable.wait_exit() == 0
    assert stable.log[-1]["finished"] is True


@pytest.mark.parametrize(
    "value", ["http://a:1", "a", "a:0", "a:b", "[::1", ":9000", 9000, "a:1/x", "u@a:1", "::1:9000", None]
)
def test_an_address_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="'to_grpc' must be a host and a port such as"):
        parse_forwarding({"to": "http://x", "to_grpc": value, "share": 1})


@pytest.mark.parametrize("value", ["iris-canary.ns.svc:9000", "127.0.0.1:80", "[::1]:9000"])
def test_an_address_is_told_as_it_was_given(value: str) -> None:
    setting = parse_forwarding({"to": "http://x", "to_grpc": value, "share": 1})
    assert setting is not None
    assert setting.describe() == {"to": "http://x", "to_grpc": value, "share": 1.0, "by": "random"}


def test_clients_in_a_hurry_do_not_close_the_way_for_others(start_server: Start, start_stub: StartStub) -> None:
    server = start_server("iris", PENSTOCK_REVISION="stable").ready()

    def behave(_: bytes, __: grpc.ServicerContext) -> bytes:
        stub.released.wait(0.3)
        return b""

    stub = tell_stub(server, start_stub, behave)
    with Client(server.grpc_port) as client:
        for _ in range(3):
            assert client.infer(iris_raw(SETOSA), timeout=0.1).code == StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: forwarded(server)["forwarded"] == 3)
    assert not told(server)["target_grpc"]["failing"]
    assert ask(server).code() == StatusCode.OK
    assert forwarded(server) == {"forwarded": 4, "fallback": 0, "timeout": 0}
    assert requests_by_outcome(server) == NONE
