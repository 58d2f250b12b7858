"""What wrk and h2load are told, and what is read from what they print."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench.server.cases import CASES
from bench.server.tools import Outcome, h2load_command, percentile, read_h2load, read_wrk, wrk_command, wrk_script

WRK = """\
Running 3s test @ http://127.0.0.1:18085/v2/models/m/infer
  1 threads and 64 connections
penstock {"requests":9000,"us":3000000,"status":%d,"connect":0,"read":%d,"write":0,"timeout":0,"p50":3700,"p99":7960.5}
"""
H2LOAD = """\
finished in 3.00s, 1088.00 req/s, 386.78KB/s
requests: 2200 total, 2200 started, 2176 done, 2170 succeeded, 6 failed, 0 errored, 0 timeout
status codes: 2176 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 773.57KB (792132) total, 9.64KB (9873) headers (space savings 96.27%), 405.06KB (217000) data
"""
GRPC = next(case for case in CASES if case.protocol == "grpc")
JSON = CASES[0]


def test_a_clean_run_of_wrk() -> None:
    assert read_wrk(WRK % (0, 0)) == Outcome(3000.0, 0.0037, 0.0079605)


def test_answers_that_are_no_2xx_do_not_count_and_are_told() -> None:
    outcome = read_wrk(WRK % (3000, 2))
    assert outcome.rate == 2000.0
    assert outcome.errors == "3,000 answers were no 2xx, 2 reads failed"


def test_a_run_of_wrk_without_answers_is_an_error() -> None:
    line = 'penstock {"requests":0,"us":1,"status":0,"connect":0,"read":0,"write":0,"timeout":4,"p50":0,"p99":0}'
    assert read_wrk(line).errors == "4 requests timed out, no answers"


def test_something_else_than_wrks_results() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        read_wrk("unable to connect to 127.0.0.1:1 Connection refused")


def log_of(*microseconds: int) -> list[str]:
    return [f"1795663669108843\t200\t{time}\n" for time in microseconds]


def test_a_run_of_h2load() -> None:
    outcome = read_h2load(H2LOAD, log_of(*range(1000, 11000, 100)), 2.0, 100)
    assert outcome == Outcome(1085.0, 0.006, 0.0109, "6 failed")


def test_grpc_errors_are_seen_by_their_missing_data() -> None:
    outcome = read_h2load(H2LOAD, log_of(1000), 2.0, 200)
    assert outcome.errors == "6 failed, answers without their data (50% of it is missing)"


def test_a_run_of_h2load_without_answers_is_an_error() -> None:
    nothing = H2LOAD.replace("2176 done, 2170 succeeded, 6 failed", "0 done, 0 succeeded, 0 failed")
    assert read_h2load(nothing, [], 2.0, 100) == Outcome(0.0, 0.0, 0.0, "no answers")


def test_something_else_than_h2loads_results() -> None:
    with pytest.raises(ValueError, match="h2load did not tell"):
        read_h2load("h2load: unrecognized option", [], 2.0, 100)


def test_what_h2load_is_told() -> None:
    words = h2load_command(Path("b"), {"te": "trailers"}, GRPC, "http://127.0.0.1:9/m", "-D4", "--log-file=l")
    assert words == ["h2load", "-t1", "-c8", "-m8", "-D4", "--log-file=l", "--data=b",
                     "-H", "te: trailers", "http://127.0.0.1:9/m"]  # fmt: skip


def test_percentiles() -> None:
    assert [percentile(range(100), share) for share in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]


class Echo(BaseHTTPRequestHandler):
    """Keeps what it was sent; every third answer is a 500."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str | None, bytes]]
    count = 0

    def do_POST(self) -> None:
        self.seen.append((self.headers["x-name"], self.rfile.read(int(self.headers["content-length"]))))
        Echo.count += 1
        self.send_response(500 if Echo.count % 3 == 0 else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silence."""


class Quiet(ThreadingHTTPServer):
    """wrk leaves in the middle of answers."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def echo() -> Iterator[int]:
    Echo.seen = []
    with Quiet(("127.0.0.1", 0), Echo) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (make bench-server installs it)")
def test_wrk_itself_sends_the_body_and_tells_errors(tmp_path: Path, echo: int) -> None:
    body, script = tmp_path / 'a "body"', tmp_path / "script.lua"
    content = bytes(range(256)) * 10
    body.write_bytes(content)
    script.write_text(wrk_script(body, {"x-name": 'with "quotes"'}))
    done = subprocess.run(wrk_command(script, JSON, echo, 1), capture_output=True, text=True, check=True, timeout=30)
    outcome = read_wrk(done.stdout)
    assert set(Echo.seen) == {('with "quotes"', content)}
    assert outcome.rate > 0
    assert "answers were no 2xx" in outcome.errors


def test_names_survive_the_lua_script() -> None:
    script = wrk_script(Path("/models/a b"), {"content-type": "application/json"})
    assert 'io.open("/models/a b", "rb")' in script
    assert f'wrk.headers["content-type"] = {json.dumps("application/json")}' in script
