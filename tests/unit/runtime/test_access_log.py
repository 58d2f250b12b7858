"""The access log: which requests it tells of, what it tells, and what it never does."""

from __future__ import annotations

import json
import logging
import time

import pytest

from penstock_runtime.log import FIELDS
from penstock_runtime.server.observing.access_log import MAX_LINES_A_SECOND, AccessLog
from penstock_runtime.server.observing.observed import ObservedRequest
from penstock_runtime.server.settings import SettingsError
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, ServerThread, call, iris_request, tensor

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-00"


def test_without_it_nothing_is_logged(start_server: Start) -> None:
    server = start_server("iris").ready()
    assert server.infer(iris_request(SETOSA)).status == 200
    server.kill()
    assert "request" not in [line["msg"] for line in iter(server.lines.get_nowait, None)]


def test_a_line_tells_of_a_request_and_nothing_of_its_content(start_server: Start) -> None:
    server = start_server("iris", "--access-log", "1", PENSTOCK_REVISION="r7").ready()
    body = json.dumps(iris_request([1234.5, 3.5, 1.4, 0.2], id="order-17")).encode()
    secret = {"Authorization": "Bearer hush", "X-User": "somebody", "traceparent": PARENT}
    reply = call(server.http_port, "POST", "/v2/models/m/infer", body, secret)
    line = server.wait_log("request")
    assert 0 < line.pop("inference_seconds") <= line.pop("seconds") < 60
    assert line.pop("queue_seconds") >= 0
    assert line.pop("time")
    assert line == {
        "level": "info", "msg": "request", "protocol": "http", "method": "POST", "path": "/v2/models/m/infer",
        "status": 200, "bytes_in": len(body), "bytes_out": len(reply.body), "revision": "r7", "id": "order-17",
        "trace_id": TRACE,
    }  # fmt: skip


def test_refusals_are_told_too_and_long_ids_and_other_paths_are_not(start_server: Start) -> None:
    server = start_server("iris", "--access-log", "1").ready()
    server.get("/v2/models/m")
    server.infer({}, traceparent="00-nonsense")
    line = server.wait_log("request")
    assert (line["status"], line["path"]) == (400, "/v2/models/m/infer")
    assert not {"id", "trace_id", "inference_seconds"} & set(line)
    server.infer(iris_request(SETOSA, id=65 * "x"), model="nobody")
    line = server.wait_log("request")
    assert (line["status"], line["path"]) == (404, "/v2/models/nobody/infer")
    server.infer(iris_request(SETOSA, id=65 * "x"))
    assert "id" not in server.wait_log("request")


def test_failures_are_told_whatever_the_share(start_server: Start) -> None:
    server = start_server("picky", "--access-log", "1e-9").ready()
    for _ in range(50):
        server.infer({"inputs": [tensor("x", "FP32", [4], [1, 2, 3, 4])]})
    assert server.infer({"inputs": [tensor("x", "FP32", [3], [1, 2, 3])], "id": "odd"}).status == 500
    line = server.wait_log("request")
    assert (line["status"], line["level"], line["id"]) == (500, "error", "odd")


def seen(status: int) -> ObservedRequest:
    return ObservedRequest("POST", "/v2/models/m/infer", status, started=time.perf_counter())


def lines_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [getattr(record, FIELDS) for record in caplog.records]


def test_the_share_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    now = iter(range(10_000))
    log = AccessLog(0.25, clock=lambda: float(next(now)))
    with caplog.at_level(logging.INFO, "penstock_runtime"):
        for _ in range(4000):
            log.tell(seen(200))
    assert 800 < len(caplog.records) < 1200


def test_lines_are_bounded_and_the_next_one_says_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 7.1
    log = AccessLog(1.0, clock=lambda: now)
    with caplog.at_level(logging.INFO, "penstock_runtime"):
        for _ in range(MAX_LINES_A_SECOND + 23):
            log.tell(seen(503))
        assert len(caplog.records) == MAX_LINES_A_SECOND
        now = 8.0
        log.tell(seen(200))
        log.tell(seen(200))
    assert [line.get("left_out") for line in lines_of(caplog)[-2:]] == [23, None]


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan"])
def test_what_is_no_share(share: str) -> None:
    with pytest.raises(SettingsError, match="is no share"):
        ServerThread("--model-path", "m.onnx", "--access-log", share)


def told(server: ServerThread, method: str, body: object = None) -> object:
    reply = call(server.admin_port, method, "/v2/logging", body)
    return reply.json if reply.status == 200 else (reply.status, reply.json["error"])


def test_the_share_can_be_changed_while_it_serves(start_server: Start) -> None:
    server = start_server("iris").ready()
    assert told(server, "GET") == {"logging": None, "source": None, "generation": None, "access_log": 0.0}
    for wrong, message in (
        ({"access_log": 2}, "'access_log' is 2, which is not from 0 to 1; 5 % is 0.05"),
        ({"level": 2}, "the setting has the unknown key 'level'; there are access_log"),
    ):
        assert told(server, "PUT", wrong) == (400, f"logging: {message}")
    server.infer(iris_request(SETOSA, id="before"))
    told(server, "PUT", {"access_log": 1, "generation": 3})
    server.wait_log("logging changed")
    server.infer(iris_request(SETOSA, id="between"))
    assert server.wait_log("request")["id"] == "between"
    assert told(server, "DELETE") == {"logging": None, "source": "admin", "generation": 3, "access_log": 0.0}
    server.infer(iris_request(SETOSA, id="after"))
    server.kill()
    assert "request" not in [line["msg"] for line in iter(server.lines.get_nowait, None)]


def test_without_a_share_failures_are_not_told_either(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog(0.0)
    with caplog.at_level(logging.INFO):
        log.tell(ObservedRequest("POST", "/v2/models/m/infer", 500, started=0.0))
        assert caplog.messages == []
        log.share = 1e-9
        log.tell(ObservedRequest("POST", "/v2/models/m/infer", 500, started=0.0))
        assert caplog.messages == ["request"]
