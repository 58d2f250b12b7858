"""Forwarding between real servers: who answers, who counts, and what is chosen."""

from __future__ import annotations

import gzip
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.runtime.conftest import Pair, Start, StartProcess
from tests.unit.runtime.forwarding import NONE, forwarded, never, start_target, tell, told, url
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import SETOSA, VIRGINICA, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.targets import Target, answering, response
from tests.unit.runtime.test_overload import wait_until


def test_a_forwarded_request_is_answered_and_counted_by_its_receiver(pair: Pair) -> None:
    stable, canary = pair
    assert forwarded(stable) == {"forwarded": 0, "fallback": 0, "timeout": 0}
    assert tell(stable, to=url(canary), share=1).status == 200
    reply = stable.infer(iris_request(SETOSA, id="7"))
    assert (reply.status, reply.headers["penstock-revision"], reply.json["id"]) == (200, "canary", "7")
    assert requests_by_outcome(stable) == NONE
    assert requests_by_outcome(canary) == {**NONE, "ok": 1}
    assert forwarded(stable) == {"forwarded": 1, "fallback": 0, "timeout": 0}
    assert forwarded(canary)["forwarded"] == 0
    assert sample(stable, "penstock_forward_duration_seconds_count") == 1
    assert sample(stable, "penstock_request_duration_seconds_count") == 0


def test_the_prediction_id_is_the_receivers(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    reply = stable.infer(iris_request(SETOSA))
    feedback = canary.feedback([{"id": reply.headers["penstock-prediction-id"], "label": 0}])
    assert feedback.json["accepted"] == 1


def test_what_the_target_says_of_a_bad_request_is_passed_on_and_counted_there(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    direct, relayed = canary.infer({"inputs": 1}), stable.infer({"inputs": 1})
    assert relayed == direct
    assert relayed.status == 400
    assert requests_by_outcome(canary)["client_error"] == 2
    assert requests_by_outcome(stable) == NONE


@pytest.mark.parametrize("headers", [{}, {"accept-encoding": "gzip"}])
def test_binary_and_compressed_answers_come_back_byte_for_byte(pair: Pair, headers: dict[str, str]) -> None:
    stable, canary = pair
    body = gzip.compress(json.dumps(iris_request(*[SETOSA, VIRGINICA] * 200, parameters={"binary_data_output": True}))
                         .encode())  # fmt: skip
    headers |= {"content-encoding": "gzip"}
    direct = canary.infer(body, **headers)
    tell(stable, to=url(canary), share=1)
    relayed = stable.infer(body, **headers)
    assert relayed.status == 200
    assert relayed.body == direct.body
    without_id = [{k: v for k, v in reply.headers.items() if k != "penstock-prediction-id"}
                  for reply in (direct, relayed)]  # fmt: skip
    assert without_id[0] == without_id[1]
    assert "inference-header-content-length" in relayed.headers
    assert ("content-encoding" in relayed.headers) == bool(headers.get("accept-encoding"))


def test_a_request_makes_one_hop_even_in_a_circle(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    tell(canary, to=url(stable), share=1)
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    assert canary.infer(iris_request(SETOSA)).headers["penstock-revision"] == "stable"
    tell(stable, to=url(stable), share=1)
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "stable"
    assert requests_by_outcome(stable) == {**NONE, "ok": 2}
    assert requests_by_outcome(canary) == {**NONE, "ok": 1}


def test_what_is_no_inference_and_what_this_server_would_refuse_stays(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    assert stable.get("/v2/models/m/infer").status == 405
    assert call(stable.http_port, "POST", "/v2/models/m/versions/99/infer", iris_request(SETOSA)).status == 404
    assert stable.infer({}, model="other").status == 404
    assert stable.get("/v2/models/m").status == 200
    assert forwarded(stable)["forwarded"] == 0
    assert requests_by_outcome(stable)["client_error"] == 2


def test_all_requests_with_one_value_of_the_header_go_the_same_way(pair: Pair) -> None:
    stable, canary = pair

    def canaries() -> set[int]:
        return {user for user in range(100)
                if stable.infer(iris_request(SETOSA), **{"X-User": f"user {user}"}).headers["penstock-revision"] == "canary"}  # fmt: skip  # noqa: E501

    tell(stable, to=url(canary), share=0.2, by={"header": "x-user"})
    few = canaries()
    assert canaries() == few
    assert 5 < len(few) < 40
    tell(stable, to=url(canary), share=0.5, by={"header": "x-user"})
    many = canaries()
    assert few < many, "raising the share moves nobody back"
    without = [stable.infer(iris_request(SETOSA)).headers["penstock-revision"] for _ in range(100)]
    assert 40 <= without.count("canary") <= 60, "who sends no header is chosen at random"


def test_forwards_under_way_take_no_place_here(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, never)
    server = start_server("iris", PENSTOCK_SERVING='{"maxQueue":0,"threads":1,"timeout":"30s"}').ready()
    tell(server, to=target.url, share=0.5, by={"header": "x-user"})
    users = [f"user {number}" for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        jobs = {user: pool.submit(server.infer, iris_request(SETOSA), **{"x-user": user}) for user in users}
        wait_until(lambda: len(target.requests) + sum(job.done() for job in jobs.values()) == 40)
        assert len(target.requests) >= 10
        assert {job.result().status for job in jobs.values() if job.done()} <= {200, 429}
        here = next(user for user, job in jobs.items() if job.done())
        assert server.infer(iris_request(SETOSA), **{"x-user": here}).status == 200
        target.close()
        for job in jobs.values():
            assert job.result().status in (200, 429)


def test_a_client_that_leaves_is_told_to_the_target(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, never)
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw:
        raw.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        wait_until(lambda: target.requests)
    assert target.gone.wait(20)
    wait_until(lambda: forwarded(server)["forwarded"] == 1)
    assert requests_by_outcome(server) == NONE


def test_a_forward_in_flight_is_finished_before_the_end(start_process: StartProcess, start_server: Start) -> None:
    canary = start_server("slow", PENSTOCK_REVISION="canary").ready()
    stable = start_process("slow", "--drain-seconds", "0", PENSTOCK_REVISION="stable").ready()
    tell(stable, to=url(canary), share=1)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(stable.infer, {"inputs": [tensor("n", "INT64", [1], [3000])]})
        wait_until(lambda: told(stable)["target"]["connections"] == 1 and canary.pending == 1)
        stable.terminate()
        reply = job.result()
    assert (reply.status, reply.headers["penstock-revision"]) == (200, "canary")
    assert reply.headers["connection"] == "close"
    assert stable.wait_exit() == 0
    assert stable.log[-1]["finished"] is True


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_request_is_chosen_once_in_however_many_pieces_it_comes(
    start_server: Start, targets: list[Target], pieces: int
) -> None:
    target = start_target(targets, answering(response(200, b"there")))
    server = start_server("iris").ready()
    tell(server, to=target.url, share=0.5)
    body = json.dumps(iris_request(SETOSA)).encode()
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    parts = {1: [head + body], 2: [head, body], 3: [head[:30], head[30:] + body[:10], body[10:]]}[pieces]
    there = 0
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw:
        raw.settimeout(20)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(100):
            for part in parts:
                raw.sendall(part)
                if part is not parts[-1]:
                    # Whatever the server has of it is read and parsed once it answers another request.
                    assert server.get("/v2/health/live").status == 200
            there += raw.recv(65536).endswith(b"there")
    assert there == 50
    assert told(server)["counts"]["seen"] == 100
    assert requests_by_outcome(server) == {**NONE, "ok": 50}


def test_a_model_that_is_not_loaded_forwards_nothing(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, answering(response(200, b"x")))
    server = start_server("iris")
    server.start()
    tell(server, to=target.url, share=1)
    first = server.infer(iris_request(SETOSA))
    server.wait_log("ready")
    assert first.status in (200, 503)
    assert server.infer(iris_request(SETOSA)).body == b"x"


def one(x: float) -> dict[str, object]:
    return {"inputs": [tensor("x", "FP32", [1, 1], [x])]}


def test_each_model_of_a_server_has_the_share_of_its_own_requests(
    start_repository: Start, targets: list[Target], tmp_path: Path
) -> None:
    target = start_target(targets, answering(response(200, b"x")))
    for name in ("busy", "quiet"):
        write_scaled(tmp_path / "root" / name)
    server = start_repository(tmp_path / "root").ready()
    tell(server, to=target.url, share=0.25)
    for number in range(400):
        # Three of one for one of the other, in step.
        assert server.infer(one(1.0), "quiet" if number % 4 == 3 else "busy").status == 200
    for name, count in (("busy", 75), ("quiet", 25)):
        assert sample(server, "penstock_forwarded_total", result="forwarded", model=name) == count
        assert sum(f"POST /v2/models/{name}/infer ".encode() in each for each in target.requests) == count


def test_a_version_that_is_not_the_current_one_is_answered_here(
    start_server: Start, targets: list[Target], tmp_path: Path
) -> None:
    target = start_target(targets, answering(response(200, b"there")))
    for version in ("1", "2"):
        write_scaled(tmp_path / "model" / version, factor=int(version))
    server = start_server(str(tmp_path / "model"), "--versions", "all").ready()
    tell(server, to=target.url, share=1)
    path = "/v2/models/m/versions/%s/infer"
    assert call(server.http_port, "POST", path % 2, one(1.0)).body == b"there"
    assert call(server.http_port, "POST", path % 1, one(1.0)).json["outputs"][0]["data"] == [1.0]
