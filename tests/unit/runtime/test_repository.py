"""Several models, several versions, and their exchange while they serve."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from penstock_runtime.__main__ import main
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.settings import add_arguments, read_settings
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import PORTS, SETOSA, Reply, Server, ServerThread, call, iris_request, tensor
from tests.unit.runtime.scrape import families, sample
from tests.unit.runtime.test_overload import slow_request, wait_until

StartRepository = Callable[..., ServerThread]
CONTROL = ("--model-control", "explicit")


def scaled_by(server: Server, model: str = "m", version: str | None = None) -> float:
    """Return the factor that the model multiplies by at the moment."""
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
    reply = call(server.http_port, "POST", path, {"inputs": [tensor("x", "FP32", [1, 1], [1.0])]})
    assert reply.status == 200, reply.body
    return float(reply.json["outputs"][0]["data"][0])


def states(server: Server) -> dict[tuple[str, str], str]:
    return {(item["name"], item["version"]): item["state"] for item in server.command("index").json}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of "twice" and of "more", which has three versions."""
    write_scaled(tmp_path / "root" / "twice")
    for version in (1, 2, 10):
        write_scaled(tmp_path / "root" / "more" / str(version), factor=version)
    return tmp_path / "root"


def test_every_folder_is_a_model_with_numbers_of_its_own(root: Path, start_repository: StartRepository) -> None:
    server = start_repository(root).ready()
    assert (scaled_by(server, "twice"), scaled_by(server, "more")) == (2, 10)
    scaled_by(server, "more")
    assert server.get("/v2/models/more").json["versions"] == ["10"]
    assert sample(server, "penstock_requests_total", model="twice", outcome="ok") == 1
    assert sample(server, "penstock_requests_total", model="more", outcome="ok") == 2
    assert len(families(server.metrics_text())["penstock_requests"].samples) == 10
    counts = {item["name"]: item["inference_count"] for item in server.get("/v2/models/stats").json["model_stats"]}
    assert counts == {"twice": 1, "more": 2}
    reply = call(server.http_port, "POST", "/v2/models/none/infer", {})
    assert (reply.status, reply.json["error"]) == (404, "unknown model 'none'; this server has 'more', 'twice'")


@pytest.mark.parametrize(("policy", "served"), [("latest", ["10"]), ("all", ["1", "2", "10"]), ("2,1", ["1", "2"])])
def test_versions_are_served_by_the_policy_and_the_highest_answers(
    root: Path, start_server: Start, policy: str, served: list[str]
) -> None:
    server = start_server(str(root / "more"), "--versions", policy).ready()
    assert server.get("/v2/models/m").json["versions"] == served
    assert {version: scaled_by(server, version=version) for version in served} == {v: float(v) for v in served}
    assert scaled_by(server) == float(served[-1])
    reply = server.get("/v2/models/m/versions/7/ready")
    assert (reply.status, reply.json["error"]) == (
        404,
        f"model 'm' has no version '7'; it has {', '.join(map(repr, served))}",
    )
    stats = server.get("/v2/models/m/stats").json["model_stats"]
    assert {item["version"]: item["inference_count"] for item in stats} == {
        version: 2 if version == served[-1] else 1 for version in served
    }


@pytest.mark.usefixtures("quiet_logs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model-path", "{root}/more", "--versions", "3,2"), "no version 3 in"),
        (("--model-path", "{root}/more", "--versions", "newest"), "'newest' is none of latest, all, or numbers"),
        (("--model-repository", "{root}/nowhere"), "there is no such folder"),
        (("--model-repository", "{root}/more/1"), "it has no folder"),
    ],
)
def test_what_is_not_there_is_told_at_the_start(
    root: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    log = tmp_path / "termination"
    arguments = tuple(argument.format(root=root) for argument in arguments)
    assert main(["serve", *PORTS, *arguments, "--termination-log", str(log)]) == 1
    assert message in json.loads(log.read_bytes())["message"]


@pytest.mark.usefixtures("quiet_logs")
def test_all_models_of_the_start_are_required(root: Path, tmp_path: Path) -> None:
    (root / "broken").mkdir()
    (root / "broken" / "model.onnx").write_bytes(b"\x08\x08no model")
    log = tmp_path / "termination"
    assert main(["serve", *PORTS, "--model-repository", str(root), "--termination-log", str(log)]) == 1
    assert json.loads(log.read_bytes())["reason"] == "ModelLoadFailed"


class Callers:
    """Threads that ask for a factor all the time, each on a connection of its own, until told to stop."""

    def __init__(self, server: Server, count: int) -> None:
        self.answers: list[list[float]] = [[] for _ in range(count)]
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(server.http_port, seen)) for seen in self.answers]
        for thread in self._threads:
            thread.start()

    def _call(self, port: int, seen: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"inputs": [tensor("x", "FP32", [1, 1], [1.0])]})
        while not self._stop.is_set():
            connection.request("POST", "/v2/models/m/infer", body)
            reply = connection.getresponse()
            text = reply.read()
            if reply.status != 200:
                self.failures.append(text.decode())
                continue
            seen.append(json.loads(text)["outputs"][0]["data"][0])
        connection.close()

    def wait_for(self, factor: float) -> None:
        """Wait until every thread has been answered by `factor`."""
        wait_until(lambda: all(seen and seen[-1] == factor for seen in self.answers))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_model_is_exchanged_under_load_without_a_failure(tmp_path: Path, start_server: Start) -> None:
    write_scaled(tmp_path, factor=1)
    server = start_server(str(tmp_path), *CONTROL).ready()
    callers = Callers(server, 8)
    try:
        for factor in (2, 3, 4):
            callers.wait_for(factor - 1)
            write_scaled(tmp_path, factor=factor)
            assert server.command("models/m/load").status == 200
            assert scaled_by(server) == factor, "the load was answered after the exchange"
        callers.wait_for(4)
    finally:
        callers.stop()
    assert not callers.failures
    for seen in callers.answers:
        assert seen == sorted(seen), "nobody is answered by an old version after a new one"
    for _ in range(3):
        server.wait_log("retired")
    (stats,) = server.get("/v2/models/m/stats").json["model_stats"]
    total = sum(map(len, callers.answers)) + 3
    assert stats["inference_count"] == total, "what was counted is kept"
    assert sample(server, "penstock_requests_total", outcome="ok") == total
    assert sample(server, "penstock_model_loads_total", result="ok") == 4


def golden(folder: Path, expected: list[float], **more: object) -> None:
    request = {"inputs": [tensor("x", "FP32", [2, 1], [1.0, 2.0])]}
    case = {**request, "outputs": [{"name": "y", "data": expected}], **more}
    (folder / "golden.json").write_bytes(orjson.dumps([case]))


FAILED_LOADS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x08no"), "model.onnx is not an ONNX model"),
    (lambda folder: (folder / "model.onnx").unlink(), "no .onnx file in"),
    (
        lambda folder: golden(folder, [3.0, 6.0]),
        "golden.json, request 0: output 'y': 2 of 2 elements differ; element 0 is 2.0 instead of 3.0",
    ),
    (lambda folder: golden(folder, [1e300, 4.0]), "element 0 is 2.0 instead of inf"),
    (lambda folder: golden(folder, [2.0, 4.0, 6.0]), "its shape is [2, 1] instead of [3]"),
    (lambda folder: golden(folder, [2.0, 4.0], tolerance={"absolute": -1}), "a tolerance must be a number >= 0"),
    (lambda folder: golden(folder, [2.0, 4.0], inputs=[]), "missing input 'x'"),
    (lambda folder: (folder / "golden.json").write_bytes(b"["), "golden.json is not valid JSON"),
    (lambda folder: (folder / "golden.json").write_bytes(b"{}"), "golden.json must be a list"),
]


@pytest.mark.parametrize(("spoil", "message"), FAILED_LOADS)
def test_a_failed_load_leaves_the_old_serving_and_says_why(
    tmp_path: Path, start_server: Start, spoil: Callable[[Path], object], message: str
) -> None:
    write_scaled(tmp_path)
    golden(tmp_path, [2.0, 4.0001])
    server = start_server(str(tmp_path), *CONTROL).ready()
    assert server.loaded["golden_requests"] == 1
    spoil(tmp_path)
    reply = server.command("models/m/load")
    assert reply.status == 400
    assert reply.json["error"].startswith("model 'm' was not loaded, nothing has changed: ")
    assert message in reply.json["error"]
    assert scaled_by(server) == 2
    assert server.get("/v2/health/ready").status == 200
    (entry,) = server.command("index").json
    assert (entry["state"], message in entry["reason"]) == ("READY", True)
    assert sample(server, "penstock_model_loads_total", result="failed") == 1
    write_scaled(tmp_path, factor=5)
    golden(tmp_path, [5.0, 10.0])
    assert server.command("models/m/load").status == 200
    assert scaled_by(server) == 5
    assert server.command("index").json == [{"name": "m", "version": "1", "state": "READY", "reason": ""}]


@pytest.mark.parametrize("label", [2**63, -(2**63), 2**64 - 1, 1.5, True, "setosa", None, [[1]], {}])
def test_golden_labels_that_no_integer_can_be_fail_the_load_with_words(
    models: Path, tmp_path: Path, start_server: Start, label: object
) -> None:
    shutil.copytree(models / "iris", tmp_path / "iris")
    server = start_server(str(tmp_path / "iris"), *CONTROL).ready()
    case = {**iris_request(SETOSA), "outputs": [{"name": "label", "data": [label]}]}
    (tmp_path / "iris" / "golden.json").write_bytes(orjson.dumps([case]))
    reply = server.command("models/m/load")
    assert (reply.status, "golden.json, request 0: " in reply.json["error"]) == (400, True)


def test_models_come_and_go_by_the_admin_port(root: Path, start_repository: StartRepository) -> None:
    server = start_repository(root).ready()
    write_scaled(root / "late", factor=7)
    assert states(server)["late", ""] == "UNAVAILABLE", "it is listed, and not loaded by that"
    assert server.get("/v2/health/ready").status == 200
    reply = call(server.http_port, "POST", "/v2/models/late/infer", {})
    assert (reply.status, reply.json["error"]) == (503, "the model is not loaded")
    assert server.command("models/late/load").status == 200
    assert scaled_by(server, "late") == 7
    assert server.command("models/more/unload").status == 200
    assert states(server) == {("late", "1"): "READY", ("twice", "1"): "READY", ("more", ""): "UNAVAILABLE"}
    ready = server.command("index", {"ready": True}).json
    assert {item["name"] for item in ready} == {"late", "twice"}
    assert server.get("/v2/models/more/ready").status == 503
    assert server.get("/v2/health/ready").status == 200, "what was unloaded is not wanted"
    assert server.command("models/more/load").status == 200
    assert scaled_by(server, "more") == 10
    for model in ("late", "more", "twice"):
        server.command(f"models/{model}/unload")
    reply = server.get("/v2/health/ready")
    assert (reply.status, reply.json["error"]) == (503, "there is no model")


async def test_what_is_found_while_the_first_models_load_is_no_harm(root: Path) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    settings = read_settings(parser.parse_args(["--model-repository", str(root)]), {})
    repository = Repository(settings, Keys(root / "no keys"), settings.feedback, "none")
    loading = asyncio.create_task(repository.load_all())
    await asyncio.sleep(0)
    write_scaled(root / "late")
    assert ("late", "UNAVAILABLE") in {(entry["name"], entry["state"]) for entry in repository.index()}
    await loading
    assert repository.ready
    assert {entry["name"] for entry in repository.index(only_ready=True)} == {"more", "twice"}
    repository.close()


@pytest.mark.parametrize("name", ["none", "..", ".hidden", "%2e%2e", "a%2fb", "x" * 300])
def test_only_folders_of_the_repository_can_be_loaded(root: Path, start_repository: StartRepository, name: str) -> None:
    write_scaled(root / ".hidden")
    server = start_repository(root).ready()
    assert server.command(f"models/{name}/load").status == 404
    assert server.command(f"models/{name}/unload").status == 404
    assert set(states(server)) == {("more", "10"), ("twice", "1")}


def test_a_new_model_that_cannot_be_loaded_stays_unknown(root: Path, start_repository: StartRepository) -> None:
    server = start_repository(root).ready()
    (root / "late").mkdir()
    assert "it is empty" in server.command("models/late/load").json["error"]
    assert server.get("/v2/models/late").status == 404
    assert server.get("/v2/health/ready").status == 200


def test_unloading_waits_for_the_requests_in_flight(start_server: Start) -> None:
    server = start_server("slow", *CONTROL).ready()
    replies: list[Reply] = []
    asking = threading.Thread(target=lambda: replies.append(server.infer(slow_request(6000))))
    asking.start()
    wait_until(lambda: server.pending == 1)
    unloading = threading.Thread(target=lambda: replies.append(server.command("models/m/unload")))
    unloading.start()
    wait_until(lambda: states(server) == {("m", ""): "UNLOADING"} or not unloading.is_alive())
    assert (server.pending, replies) == (1, []), "what runs is known until it has ended"
    asking.join()
    unloading.join()
    assert [reply.status for reply in replies] == [200, 200]
    assert server.pending == 0
    assert server.infer(slow_request(0)).status == 503


def test_the_data_port_has_no_commands(iris: Server) -> None:
    for path in ("index", "models/m/load", "models/m/unload"):
        assert call(iris.http_port, "POST", f"/v2/repository/{path}", {}).status == 404
    assert call(iris.admin_port, "GET", "/v2/repository/index").status == 405


def test_without_model_control_models_stay_as_they_are(iris: Server) -> None:
    for verb in ("load", "unload"):
        reply = iris.command(f"models/m/{verb}")
        assert (reply.status, "--model-control explicit" in reply.json["error"]) == (403, True)
    assert states(iris) == {("m", "1"): "READY"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[", "the body is not valid JSON"),
        ([], "the body must be a JSON object"),
        ({"parameters": {"config": "{}"}}, "parameters are not supported"),
    ],
)
def test_a_wrong_command_changes_nothing(start_server: Start, body: object, message: str) -> None:
    reply = start_server("iris", *CONTROL).ready().command("models/m/load", body)
    assert (reply.status, message in reply.json["error"]) == (400, True)


def test_a_label_counts_for_the_model_that_predicted_only(
    models: Path, tmp_path: Path, start_repository: StartRepository
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).symlink_to(models / "iris")
    server = start_repository(tmp_path).ready()
    issued = server.infer(iris_request(SETOSA), model="one").headers["penstock-prediction-id"]
    body = [{"id": issued, "label": 0}]
    assert server.feedback(body, model="other").json["rejected"]["unmatched"] == 1
    assert server.feedback(body, model="one").json["accepted"] == 1
    assert sample(server, "penstock_feedback_total", model="one", result="correct") == 1
    assert sample(server, "penstock_feedback_total", model="other", result="correct") == 0
