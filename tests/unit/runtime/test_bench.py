"""`penstock-runtime bench`: measured against real servers, ours and ones that misbehave."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penstock_runtime.__main__ import main
from penstock_runtime.protocol.metadata import read_metadata
from penstock_runtime.protocol.schema import TensorSpec
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import DEADLINE, SOURCES, Server

pytestmark = pytest.mark.usefixtures("quiet_logs")

Bench = Callable[..., tuple[int, dict[str, Any]]]
METADATA = {
    "name": "m", "versions": ["1"], "platform": "p",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "BF16", "shape": [-1]}],
}  # fmt: skip


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    """Return a function that measures a port and returns the exit code and the JSON."""

    def run(port: int, *arguments: str, path: str = "") -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["bench", f"http://127.0.0.1:{port}{path}", "--json", "--seconds", "0.5", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_server_of_ours(start_server: Start, bench: Bench) -> None:
    server = start_server("iris").ready()
    code, report = bench(server.http_port, "--connections", "3")
    ok = report["requests"]["ok"]
    assert code == 0
    assert ok > 10
    assert (report["requests"]["failed"], report["errors"], report["first_error"]) == (0, {}, None)
    assert (report["model"], report["connections"], report["binary"]) == ("m", 3, False)
    assert report["requests"]["per_second"] == pytest.approx(ok / report["seconds"], rel=0.01)
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert 0 < report["server_ms"]["infer"] < latency["max"]
    # What was counted here was answered there, and nothing else was asked of the model.
    assert f'penstock_requests_total{{model="m",revision="none",outcome="ok"}} {ok}' in server.metrics_text()


@pytest.mark.parametrize("model", ["echo", "half", "text", "patient"])
@pytest.mark.parametrize("form", [(), ("--binary",)])
def test_every_datatype_in_both_forms(start_server: Start, bench: Bench, model: str, form: tuple[str, ...]) -> None:
    server = start_server(model).ready()
    code, report = bench(server.http_port, *form)
    assert (code, report["errors"], report["first_error"]) == (0, {}, None)
    assert report["binary"] == (bool(form) or model == "half")


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/infer", "/v2/models/m/versions/1", "/v2", "/"])
def test_urls_that_name_the_model_or_not(iris: Server, bench: Bench, path: str) -> None:
    code, report = bench(iris.http_port, path=path)
    assert (code, report["model"], report["errors"]) == (0, "m", {})


def test_a_steady_rate(iris: Server, bench: Bench) -> None:
    code, report = bench(iris.http_port, "--rate", "100", "--seconds", "1")
    assert code == 0
    assert 95 <= report["requests"]["ok"] <= 101
    assert (report["rate"], report["requests"]["failed"]) == (100, 0)


def test_a_rate_that_the_server_cannot_keep_is_seen(start_server: Start, bench: Bench, tmp_path: Path) -> None:
    """Requests that had to wait for a connection count from when they were due: a slow server cannot hide it."""
    server = start_server("patient").ready()
    row = {"x": [[1.0]], "i": [1], "n": [2000]}
    (tmp_path / "row.json").write_text(json.dumps(row))
    arguments = ("--connections", "1", "--rate", "2000", "--seconds", "1", "--row-file", str(tmp_path / "row.json"))
    code, report = bench(server.http_port, *arguments)
    assert code == 0
    assert report["requests"]["unsent"] > 1000
    assert report["requests"]["unsent"] + report["requests"]["ok"] == 2000
    assert report["latency_ms"]["p99"] > 800


ROWS = [
    [5.1, 3.5, 1.4, 0.2],
    [[5.1, 3.5, 1.4, 0.2], [7.7, 2.6, 6.9, 2.3]],
    {"X": [5.1, 3.5, 1.4, 0.2]},
    {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]},
]


@pytest.mark.parametrize("form", [(), ("--binary",)])
def test_rows_of_a_file_are_sent_in_turn(
    start_server: Start, bench: Bench, tmp_path: Path, form: tuple[str, ...]
) -> None:
    server = start_server("iris").ready()
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    code, report = bench(server.http_port, "--row-file", str(tmp_path / "rows.jsonl"), *form)
    assert (code, report["errors"]) == (0, {})
    [stats] = json.loads(server.get("/v2/models/m/stats").body)["model_stats"]
    # Five rows in four requests.
    assert stats["inference_count"] / report["requests"]["ok"] == pytest.approx(1.25, rel=0.05)


def test_errors_by_status_with_what_the_first_said(iris: Server, bench: Bench, tmp_path: Path) -> None:
    bad = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    good = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    (tmp_path / "rows").write_text(f"{json.dumps(bad)}\n{json.dumps(good)}")
    code, report = bench(iris.http_port, "--row-file", str(tmp_path / "rows"), "--connections", "1")
    assert code == 0
    assert abs(report["errors"]["400"] - report["requests"]["ok"]) <= 1
    assert "input 'X'" in report["first_error"]
    (tmp_path / "rows").write_text(json.dumps(bad))
    code, report = bench(iris.http_port, "--row-file", str(tmp_path / "rows"))
    assert (code, report["requests"]["ok"], list(report["errors"])) == (1, 0, ["400"])
    assert report["latency_ms"]["p50"] is None


class Odd:
    """A server that answers each connection's first line by a function of its own; all it was asked is kept."""

    def __init__(self, answer: Callable[[str], bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while line := stream.readline().decode().strip():
                length = 0
                while header := stream.readline().strip().lower():
                    if header.startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                stream.read(length)
                self.asked.append(line)
                reply = self._answer(line)
                if reply is None:
                    return
                connection.sendall(reply)

    def close(self) -> None:
        self._listening.close()


def http(status: int, body: object, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + content


@pytest.fixture
def odd() -> Iterator[Callable[..., Odd]]:
    """Start odd servers, which end with the test."""
    started: list[Odd] = []

    def start(*arguments: Any) -> Odd:
        started.append(Odd(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()


def plain(line: str) -> bytes:
    """Answer as a server without any extension does."""
    if line.startswith("GET /v2/models/m HTTP"):
        return http(200, METADATA)
    return http(200, {"outputs": []}) if line.startswith("POST /v2/models/m/infer") else http(404, {"error": "no"})


def test_a_server_without_extensions(odd: Any, bench: Bench) -> None:
    server = odd(plain)
    code, report = bench(server.port)
    assert code == 1
    assert report["error"].endswith("does not tell which models it has; name one with --model")
    code, report = bench(server.port, "--model", "m")
    assert (code, report["errors"], report["server_ms"]) == (0, {}, None)
    allowed = {"GET /v2/models/stats", "POST /v2/repository/index", "GET /v2/models/m", "GET /v2/models/m/stats",
               "POST /v2/models/m/infer"}  # fmt: skip
    assert {line.removesuffix(" HTTP/1.1") for line in server.asked} == allowed


def test_the_only_model_of_a_repository_is_found(odd: Any, bench: Bench) -> None:
    index = [{"name": "m", "version": "1", "state": "READY"}, {"name": "m", "version": "2", "state": "READY"}]
    server = odd(lambda line: http(200, index) if "repository/index" in line else plain(line))
    code, report = bench(server.port)
    assert (code, report["model"]) == (0, "m")
    index.append({"name": "other", "state": "READY"})
    assert "has several models (m, other); name one with --model" in bench(server.port)[1]["error"]


def test_connections_that_break_are_counted_and_made_anew(odd: Any, bench: Bench) -> None:
    count = iter(range(10**9))
    server = odd(lambda line: None if "infer" in line and next(count) % 10 == 3 else plain(line))
    code, report = bench(server.port, "--model", "m", "--connections", "2")
    assert code == 0
    assert report["errors"]["connection closed"] >= 2
    assert report["requests"]["ok"] > 10


def test_a_server_that_closes_after_each_answer_is_asked_all_the_same(odd: Any, bench: Bench) -> None:
    answer = http(200, {"outputs": []}, "Connection: close")
    server = odd(lambda line: answer if "infer" in line else plain(line))
    code, report = bench(server.port, "--model", "m", "--connections", "2")
    assert (code, report["errors"]) == (0, {})
    assert report["requests"]["ok"] > 10


def test_chunks_redirects_and_bytes_that_are_no_http(odd: Any, bench: Bench) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    server = odd(lambda line: chunked if "infer" in line else plain(line))
    code, report = bench(server.port, "--model", "m")
    assert (code, report["errors"]) == (0, {})
    moved = http(302, {"error": "go away"}, "Location: http://127.0.0.1:1/")
    server = odd(lambda line: moved if "infer" in line else plain(line))
    code, report = bench(server.port, "--model", "m")
    assert (code, list(report["errors"]), report["first_error"]) == (1, ["302"], "go away")
    server = odd(lambda line: b"hello\r\n\r\n" if "infer" in line else plain(line))
    code, report = bench(server.port, "--model", "m")
    assert (code, list(report["errors"])) == (1, ["answer is no HTTP"])


def test_a_server_that_never_answers_costs_the_timeout_and_no_more(odd: Any, bench: Bench) -> None:
    stuck = threading.Event()
    server = odd(lambda line: (stuck.wait(DEADLINE) and None) if "infer" in line else plain(line))
    try:
        code, report = bench(server.port, "--model", "m", "--timeout", "0.2", "--connections", "2")
    finally:
        stuck.set()
    assert code == 1
    assert list(report["errors"]) == ["timeout"]
    assert report["errors"]["timeout"] >= 2
    assert report["seconds"] < 2


def test_a_server_by_https_whose_certificate_is_checked(
    odd: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    server = odd(plain, tls)
    arguments = ["bench", f"https://localhost:{server.port}", "--model", "m", "--seconds", "0.5", "--json"]
    assert main(arguments) == 1
    assert "certificate verify failed" in json.loads(capsys.readouterr().out)["error"]
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == {}
    assert report["requests"]["ok"] > 10


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"inputs": [{"name": "x", "datatype": "BF16", "shape": [1]}]}, "of the datatype 'BF16', of which no data can"),
        ({"inputs": []}, "tells no inputs of the model; give a request with --row-file"),
        ({"inputs": [{"name": "x"}]}, "a tensor without name, datatype or a shape"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**40]}]}, "more than 67108864 elements"),
        ({"inputs": 5}, "inputs are no list"),
        ([], "are no JSON object"),
    ],
)
def test_metadata_that_are_not_enough(odd: Any, bench: Bench, tmp_path: Path, metadata: Any, message: str) -> None:
    server = odd(lambda line: http(200, metadata) if line.startswith("GET /v2/models/m HTTP") else plain(line))
    code, report = bench(server.port, "--model", "m")
    assert code == 1
    assert message in report["error"]
    # A whole request needs no schema.
    (tmp_path / "row").write_text('{"inputs": [{"name": "x", "datatype": "BF16", "shape": [1], "data": [1]}]}')
    assert bench(server.port, "--model", "m", "--row-file", str(tmp_path / "row"))[0] == 0


def test_what_the_server_says_of_an_unknown_model(iris: Server, bench: Bench) -> None:
    code, report = bench(iris.http_port, "--model", "other")
    assert code == 1
    assert "answers 404 when asked for model 'other': unknown model 'other'" in report["error"]


def test_nobody_there(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code, report = bench(port)
    assert code == 1
    assert f"no answer from http://127.0.0.1:{port}: " in report["error"]
    assert "refused" in report["error"]


def test_lines_for_people_and_a_stop_by_hand(iris: Server) -> None:
    """At a terminal progress is shown each second; Ctrl-C ends the measurement, not the report."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "penstock_runtime", "bench", f"127.0.0.1:{iris.http_port}", "--seconds", "600"],
        env={**os.environ, "PYTHONPATH": str(SOURCES)}, stdout=subprocess.PIPE, stderr=theirs, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while b"requests/s" not in shown:
            shown += os.read(ours, 1000)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=DEADLINE)
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb" 1 s  [\d,]+ requests/s, p50 \d+\.\d\d ms, p99 ", shown)
    assert re.match(
        r"m at http://127\.0\.0\.1:\d+: 8 connections, JSON of \d+ bytes, \d+\.\d s\n  Answered   [\d,]+ requ", text
    )
    assert re.search(r"^  Latency    p50 [\d.]+ ms, p90 [\d.]+ ms, p99 [\d.]+ ms, max [\d.]+ ms$", text, re.MULTILINE)
    assert re.search(r"^  In it      waiting for the model [\d.]+ ms, in the model [\d.]+ ms", text, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [("--connections", "0"), ("--connections", "10001"), ("--seconds", "0"), ("--seconds", "nan"), ("--rate", "-1"),
     ("--rate", "many"), ("--timeout", "inf")],
)  # fmt: skip
def test_numbers_out_of_bounds(bench: Bench, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        bench(1, *arguments)
    assert arguments[0] in capsys.readouterr().err


def test_metadata_of_our_own_are_read_back(iris: Server) -> None:
    schema = read_metadata(iris.get("/v2/models/m").body)
    assert schema.inputs == (TensorSpec("X", "FP32", (-1, 4)),)
    assert [spec.name for spec in schema.outputs] == ["label", "probabilities"]
