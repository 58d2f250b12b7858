"""Forwarding between real servers: who answers, who counts, what is told and when it takes effect."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import SETOSA, VIRGINICA, Reply, Server, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.targets import Script, Target, answering, response
from tests.unit.runtime.test_overload import wait_until

NONE = {"ok": 0, "client_error": 0, "server_error": 0, "rejected": 0, "timeout": 0}


@pytest.fixture
def pair(start_server: Start) -> tuple[Server, Server]:
    """A stable server and a canary."""
    stable = start_server("iris", PENSTOCK_REVISION="stable")
    canary = start_server("iris", PENSTOCK_REVISION="canary")
    return stable.ready(), canary.ready()


@pytest.fixture
def targets() -> Iterator[list[Target]]:
    started: list[Target] = []
    yield started
    for target in started:
        target.close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.http_port}"


def tell(server: Server, **setting: object) -> Reply:
    return call(server.admin_port, "PUT", "/v2/forward", setting)


def told(server: Server) -> dict[str, Any]:
    state: dict[str, Any] = call(server.admin_port, "GET", "/v2/forward").json
    return state


def forwarded(server: Server) -> dict[str, float]:
    return {name: sample(server, "penstock_forwarded_total", result=name)
            for name in ("forwarded", "fallback", "timeout")}  # fmt: skip


def test_a_forwarded_request_is_answered_and_counted_by_its_receiver(pair: tuple[Server, Server]) -> None:
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


def test_the_prediction_id_is_the_receivers(pair: tuple[Server, Server]) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    reply = stable.infer(iris_request(SETOSA))
    feedback = canary.feedback([{"id": reply.headers["penstock-prediction-id"], "label": 0}])
    assert feedback.json["accepted"] == 1


def test_what_the_target_says_of_a_bad_request_is_passed_on_and_counted_there(pair: tuple[Server, Server]) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    direct, relayed = canary.infer({"inputs": 1}), stable.infer({"inputs": 1})
    assert relayed == direct
    assert relayed.status == 400
    assert requests_by_outcome(canary)["client_error"] == 2
    assert requests_by_outcome(stable) == NONE


@pytest.mark.parametrize("headers", [{}, {"accept-encoding": "gzip"}])
def test_binary_and_compressed_answers_come_back_byte_for_byte(
    pair: tuple[Server, Server], headers: dict[str, str]
) -> None:
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


def test_a_request_makes_one_hop_even_in_a_circle(pair: tuple[Server, Server]) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    tell(canary, to=url(stable), share=1)
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    assert canary.infer(iris_request(SETOSA)).headers["penstock-revision"] == "stable"
    tell(stable, to=url(stable), share=1)
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "stable"
    assert requests_by_outcome(stable) == {**NONE, "ok": 2}
    assert requests_by_outcome(canary) == {**NONE, "ok": 1}


def test_what_is_no_inference_and_what_this_server_would_refuse_stays(pair: tuple[Server, Server]) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1)
    assert stable.get("/v2/models/m/infer").status == 405
    assert call(stable.http_port, "POST", "/v2/models/m/versions/99/infer", iris_request(SETOSA)).status == 404
    assert stable.infer({}, model="other").status == 404
    assert stable.get("/v2/models/m").status == 200
    assert forwarded(stable)["forwarded"] == 0
    assert requests_by_outcome(stable)["client_error"] == 2


def test_all_requests_with_one_value_of_the_header_go_the_same_way(pair: tuple[Server, Server]) -> None:
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


def test_a_setting_is_shown_and_taken_back(pair: tuple[Server, Server]) -> None:
    stable, canary = pair
    assert told(stable) == {"forward": None, "source": None, "generation": None}
    state = tell(stable, to=url(canary), share=0.5, generation=3).json
    assert state["forward"] == {"to": url(canary), "share": 0.5, "by": "random"}
    assert (state["source"], state["generation"]) == ("admin", 3)
    for _ in range(100):
        stable.infer(iris_request(SETOSA))
    state = told(stable)
    assert state["counts"] == {"seen": 100, "forwarded": 50, "fallback": 0, "timeout": 0}
    assert state["fallback_reasons"] == {}
    assert state["target"] == {"addresses": 1, "failing": 0, "connections": 1, "idle": 1}
    assert call(stable.admin_port, "DELETE", "/v2/forward").json == {
        "forward": None, "source": "admin", "generation": 3,
    }  # fmt: skip
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "stable"
    assert call(stable.admin_port, "POST", "/v2/forward", {}).status == 405
    assert stable.get("/v2/forward").status == 404, "not on the port for users"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "forward: no valid JSON"),
        (b"[]", "forward: it must be a JSON object"),
        (b'{"to": "http://x", "share": 2}', "forward: 'share' is 2, which is not from 0 to 1"),
        (b'{"to": "https://x", "share": 1}', "forward: 'to': https is not supported"),
        (b'{"to": "http://x", "share": 1, "generation": -1}', "'generation' must be an integer >= 0"),
        (b'{"to": "http://x", "share": 1, "generation": "4"}', "'generation' must be an integer >= 0"),
    ],
)
def test_a_bad_setting_is_refused_and_changes_nothing(pair: tuple[Server, Server], body: bytes, message: str) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1, generation=1)
    before = told(stable)
    reply = call(stable.admin_port, "PUT", "/v2/forward", body)
    assert reply.status == 400
    assert message in reply.json["error"]
    assert told(stable) == before
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"


def test_an_old_generation_is_refused(pair: tuple[Server, Server]) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=0.5, generation=5)
    reply = tell(stable, to=url(canary), share=0.1, generation=4)
    assert (reply.status, reply.json["error"]) == (409, "forward: generation 4 is older than 5, told before")
    assert told(stable)["forward"]["share"] == 0.5
    assert tell(stable, generation=6).json["forward"] is None, "an empty setting takes back, in order"


def write(folder: Path, setting: object) -> None:
    """Exchange the file as a kubelet does, at once."""
    new = folder / "new"
    new.write_bytes(setting if isinstance(setting, bytes) else json.dumps(setting).encode())
    new.rename(folder / "forward.json")


def test_a_mounted_file_is_known_from_the_start_and_watched(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    write(tmp_path, {"to": url(canary), "share": 1})
    stable = start_server("iris", "--config-dir", str(tmp_path), PENSTOCK_REVISION="stable").ready()
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    assert told(stable)["source"] == "file"

    write(tmp_path, b'{"share": 2}')
    stable.wait_log("the file 'forward.json' is malformed and ignored")
    assert stable.log[-1]["error"] == "'to' must be a URL such as http://iris-canary.my-namespace.svc:80"
    assert told(stable)["forward"]["share"] == 1, "the last good one stays"

    write(tmp_path, {"to": url(canary), "share": 0.5, "generation": 1})
    stable.wait_log("forward changed")
    assert told(stable)["forward"]["share"] == 0.5

    (tmp_path / "forward.json").unlink()
    stable.wait_log("forward changed")
    assert told(stable) == {"forward": None, "source": None, "generation": 1}


def test_a_late_file_does_not_undo_what_was_told_since(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    stable = start_server("iris", "--config-dir", str(tmp_path), PENSTOCK_REVISION="stable").ready()
    tell(stable, to=url(canary), share=0.25, generation=8)
    write(tmp_path, {"to": url(canary), "share": 0.05, "generation": 7})
    assert stable.wait_log("the file 'forward.json' is old and ignored")["newest"] == 8
    assert told(stable)["forward"]["share"] == 0.25

    write(tmp_path, {"to": url(canary), "share": 0.25, "generation": 8})
    wait_until(lambda: told(stable)["source"] == "file")
    call(stable.admin_port, "DELETE", "/v2/forward")
    write(tmp_path, {"to": url(canary), "share": 0.3, "generation": 8})
    stable.wait_log("the file 'forward.json' is old and ignored")
    assert told(stable)["forward"] is None, "what was taken back stays so until there is something newer"

    write(tmp_path, {"to": url(canary), "share": 0.4, "generation": 9})
    wait_until(lambda: (told(stable)["forward"] or {}).get("share") == 0.4)


def test_a_file_that_vanishes_takes_back_only_what_it_told(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    write(tmp_path, {"to": url(canary), "share": 0.1})
    stable = start_server("iris", "--config-dir", str(tmp_path)).ready()
    tell(stable, to=url(canary), share=0.2)
    (tmp_path / "forward.json").unlink()
    # Two looks at the missing file, and one at another file that shows they have been.
    (tmp_path / "cohort").write_text("one")
    stable.wait_log("cohort changed")
    (tmp_path / "cohort").write_text("two")
    stable.wait_log("cohort changed")
    (tmp_path / "cohort").write_text("three")
    stable.wait_log("cohort changed")
    assert told(stable)["forward"]["share"] == 0.2


def test_a_restarted_server_goes_on_by_its_file(
    start_process: StartProcess, start_server: Start, tmp_path: Path
) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    write(tmp_path, {"to": url(canary), "share": 1, "generation": 2})
    arguments = ("iris", "--config-dir", str(tmp_path), "--drain-seconds", "0")
    first = start_process(*arguments).ready()
    assert first.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    first.terminate()
    assert first.wait_exit() == 0
    second = start_process(*arguments).ready()
    assert second.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"


def start_target(targets: list[Target], script: Script, **more: Any) -> Target:
    targets.append(Target(script, **more))
    return targets[-1]


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer"])
def test_the_target_gets_what_the_client_sent_but_for_what_is_between_two_neighbours(
    start_server: Start, targets: list[Target], path: str
) -> None:
    target = start_target(targets, answering(response(200, b"abc", "x-odd: yes", "connection: x-hop", "x-hop: 1")))
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-user": "u",
        "content-type": "odd/type", "connection": "keep-alive, X-Private", "x-private": "1", "te": "trailers",
    }  # fmt: skip
    body = b"\x00whatever\xff"
    reply = call(server.http_port, "POST", path + "?a=b%20c", body, sent)
    assert (reply.status, reply.body) == (200, b"abc")
    assert reply.headers == {"x-odd": "yes", "content-length": "3"}
    head, _, got = target.requests[0].partition(b"\r\n\r\n")
    assert got == body
    line, *lines = head.decode().split("\r\n")
    assert line == "POST /v2/models/m/infer?a=b%20c HTTP/1.1", "a version numbers what lies in one revision"
    headers = [tuple(each.split(": ")) for each in lines]
    assert sorted(headers) == sorted({
        "host": f"127.0.0.1:{target.port}", "penstock-forwarded": "1", "content-length": str(len(body)),
        "traceparent": sent["traceparent"], "x-user": "u", "content-type": "odd/type", "accept-encoding": "identity",
    }.items())  # fmt: skip


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (CHUNKED, 200, b"abcde"),
        (CONTINUE + response(200, b"x"), 200, b"x"),
        (response(500, b"broken"), 500, b"broken"),
        (response(504, b""), 504, b""),
        (response(418, b"tea", "retry-after: 3"), 418, b"tea"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
    ],
)
def test_whole_answers_pass_whatever_they_are(
    start_server: Start, targets: list[Target], answer: bytes, status: int, body: bytes
) -> None:
    target = start_target(targets, answering(answer))
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    for _ in range(2):
        reply = server.infer(iris_request(SETOSA))
        assert (reply.status, reply.body) == (status, body)
    assert requests_by_outcome(server) == NONE
    assert forwarded(server) == {"forwarded": 2, "fallback": 0, "timeout": 0}


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(429, b"{}"), "refused"),
        (response(503, b"{}"), "refused"),
        (b"", "dropped"),
        (b"HTTP/1.1 20", "dropped"),
        (HEAD + b"half", "dropped"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "dropped"),
        (b"SSH-2.0-OpenSSH_9\r\n", "garbled"),
        (b"\x15\x03\x01\x00\x02\x02\x50" * 10, "garbled"),
        (b"HTTP/1.1 200 OK\r\n\r\nwithout a length", "garbled"),
        (b"HTTP/1.1 101 Y\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "garbled"),
        (response(999, b""), "garbled"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", "garbled"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "garbled"),
        (b"HTTP/1.1 200 OK\r\nendless: " + b"x" * 100_000, "garbled"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "garbled"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000, "garbled"),
    ],
)
def test_what_is_no_whole_answer_is_answered_here(
    start_server: Start, targets: list[Target], answer: bytes, reason: str
) -> None:
    target = start_target(targets, answering(answer, close=True))
    server = start_server("iris", PENSTOCK_REVISION="stable").ready()
    tell(server, to=target.url, share=1)
    reply = server.infer(iris_request(SETOSA))
    assert (reply.status, reply.headers["penstock-revision"]) == (200, "stable")
    assert len(target.requests) == 1, "what may have killed a server is not sent to another"
    assert requests_by_outcome(server) == {**NONE, "ok": 1}
    assert forwarded(server) == {"forwarded": 0, "fallback": 1, "timeout": 0}
    assert told(server)["fallback_reasons"] == {reason: 1}


def test_an_answer_beyond_the_bound_is_not_held(
    start_server: Start, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_runtime.server.forward.relay.MIN_RESPONSE", 1000)
    target = start_target(targets, answering(response(200, b"x" * 100_000)))
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":1000}').ready()
    tell(server, to=target.url, share=1)
    assert server.infer(iris_request(SETOSA)).status == 200
    assert told(server)["fallback_reasons"] == {"garbled": 1}


def test_limits_of_this_server_hold_for_what_it_forwards(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, answering(response(200, b"x")))
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"1Ki"}').ready()
    tell(server, to=target.url, share=1)
    assert server.infer(b" " * 1025).status == 413
    assert not target.requests
    assert requests_by_outcome(server) == {**NONE, "client_error": 1}


def never(*_: object) -> bool:
    return True


def test_a_target_that_never_answers_costs_its_time_once(
    start_server: Start, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_runtime.server.forward.relay.GRACE", 0.2)
    target = start_target(targets, never)
    server = start_server("iris", PENSTOCK_SERVING='{"timeout":"300ms"}').ready()
    tell(server, to=target.url, share=1)
    start = time.monotonic()
    reply = server.infer(iris_request(SETOSA))
    assert (reply.status, reply.json) == (504, {"error": "no answer within 0.3 s"})
    assert 0.4 < time.monotonic() - start < 5
    assert target.gone.wait(10), "the connection is closed, so that the target may stop"
    assert server.infer(iris_request(SETOSA)).status == 200
    assert forwarded(server) == {"forwarded": 0, "fallback": 1, "timeout": 1}
    assert requests_by_outcome(server) == {**NONE, "ok": 1}, "the canary's timeout is not stable's"


def test_a_target_that_lives_says_itself_that_the_time_is_up(start_server: Start) -> None:
    serving = '{"timeout":"300ms","threads":1}'
    stable = start_server("slow", PENSTOCK_SERVING=serving).ready()
    canary = start_server("slow", PENSTOCK_SERVING=serving).ready()
    tell(stable, to=url(canary), share=1)
    assert stable.infer({"inputs": [tensor("n", "INT64", [1], [2**40])]}).status == 504
    assert requests_by_outcome(canary) == {**NONE, "timeout": 1}
    assert forwarded(stable) == {"forwarded": 1, "fallback": 0, "timeout": 0}


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


def test_a_connection_that_the_target_closed_while_idle_costs_nothing(
    start_server: Start, targets: list[Target]
) -> None:
    def script(connection: Any, number: int) -> bool:
        if number == 1:
            connection.sendall(response(200, b"first"))
        # The second request on a connection finds it closing: nothing comes back.
        return number == 1

    target = start_target(targets, script)
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    for _ in range(5):
        assert server.infer(iris_request(SETOSA)).body == b"first"
    assert forwarded(server) == {"forwarded": 5, "fallback": 0, "timeout": 0}
    assert len(target.requests) == 9


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
