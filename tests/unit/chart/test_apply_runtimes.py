"""The script that applies the chart's runtimes when the operator's pod starts, against an HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.chart.rendering import ROOT, script

APPLY = ROOT / "charts/penstock/files/runtimes/apply.py"
MANIFEST = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "ClusterModelRuntime",
    "metadata": {"name": "onnxruntime"},
}


@dataclass
class ApiServer:
    """Answers the given statuses in turn, then 200, and keeps what it took."""

    url: str = ""
    refusals: list[int] = field(default_factory=list)
    taken: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    state = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = state.refusals.pop(0) if state.refusals else 200
            if status == 200:
                assert self.headers["Content-Type"] == "application/apply-patch+yaml"
                assert self.headers["Authorization"] == "Bearer secret-token"
                state.taken[self.path] = json.loads(body)
            answer = json.dumps({"message": f"refused with {status}"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def run(server: ApiServer, folder: Path, patience: float = 0) -> int:
    module = script(APPLY)
    (folder / "token").write_text("secret-token\n")
    (folder / "onnxruntime.json").write_text(json.dumps(MANIFEST))
    arguments = [str(folder), "--server", server.url, "--token-file", str(folder / "token")]
    status: int = module.main([*arguments, "--patience", str(patience)])
    return status


def test_a_runtime_is_applied_with_a_manager_of_its_own(server: ApiServer, tmp_path: Path) -> None:
    assert run(server, tmp_path) == 0

    path = "/apis/penstock.dev/v1alpha1/clustermodelruntimes/onnxruntime?fieldManager=penstock-chart"
    assert server.taken == {path: MANIFEST}


@pytest.mark.parametrize("status", [404, 403, 500])
def test_it_waits_for_a_crd_and_for_its_rights(server: ApiServer, status: int) -> None:
    apply = script(APPLY)
    server.refusals = [status, status]

    apply.apply_patiently(apply.Server(server.url, "secret-token", None), MANIFEST, patience=30, pause=0.01)

    assert server.taken


def test_a_missing_crd_is_told_with_what_to_do(
    server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusals = [404]

    assert run(server, tmp_path) == 1
    assert "crds.enabled=true" in capsys.readouterr().err


def test_an_invalid_runtime_is_not_tried_again(
    server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusals = [422]

    assert run(server, tmp_path, patience=30) == 1
    assert "onnxruntime: 422: refused with 422" in capsys.readouterr().err


def test_an_admins_edit_is_left_alone_and_the_operator_starts(
    server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusals = [409]

    assert run(server, tmp_path) == 0
    assert not server.taken
    assert "kubectl delete clustermodelruntime onnxruntime" in capsys.readouterr().out


def test_an_unreachable_api_server_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ApiServer(url="http://127.0.0.1:1"), tmp_path) == 1
    assert "cannot be reached" in capsys.readouterr().err
