"""The documents that describe the ports: complete, and about the models that there are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.conftest import Start
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import Server, ServerThread, call


def document(port: int) -> dict[str, Any]:
    reply = call(port, "GET", "/openapi.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = reply.json
    return found


def refs(value: Any) -> Iterator[str]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "$ref":
            yield item
        elif isinstance(item, (dict, list)):
            yield from refs(item)


def test_the_data_port_describes_what_it_answers(iris: Server) -> None:
    found = document(iris.http_port)
    assert found["openapi"] == "3.1.0"
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    assert set(found["paths"]) == {
        "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats",
        *(path + tail for path in (model, version) for tail in ("", "/ready", "/config", "/stats", "/infer")),
    }  # fmt: skip
    for path, item in found["paths"].items():
        url = path.replace("{model}", "m").replace("{version}", "1")
        for method in ("GET", "HEAD"):
            described = item.get(method.lower())
            status = call(iris.http_port, method, url).status
            assert (status == 405) if described is None else (str(status) in described["responses"])
    infer = found["paths"][f"{model}/infer"]["post"]
    assert set(infer["responses"]) == {"200", "400", "404", "408", "413", "415", "429", "500", "503", "504"}
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}


def test_the_admin_port_describes_what_it_answers(iris: Server) -> None:
    found = document(iris.admin_port)
    for path, item in found["paths"].items():
        url = path.replace("{model}", "m").replace("{version}", "1")
        for method in ("GET", "HEAD", "POST"):
            reply = call(iris.admin_port, method, url, b"{" if method == "POST" else None)
            described = item.get(method.lower())
            assert (reply.status == 405) if described is None else (str(reply.status) in described["responses"])
    for path in ("/v2/forward", "/v2/shadow", "/v2/logging"):
        put = found["paths"][path]["put"]["responses"]
        for body, status in ((b"{", 400), (b'{"generation": 7}', 200), (b'{"generation": 6}', 409)):
            assert call(iris.admin_port, "PUT", path, body).status == status
            assert str(status) in put
        assert call(iris.admin_port, "DELETE", path).status == 200
        assert call(iris.admin_port, "HEAD", path).status == 200
    assert "/v2/models/{model}/infer" not in found["paths"]


def test_the_admin_port_says_what_it_is_for(iris: Server) -> None:
    assert call(iris.admin_port, "GET", "/v2").json["extensions"] == [
        "model_repository", "penstock_feedback", "penstock_forward", "penstock_shadow", "penstock_logging",
    ]  # fmt: skip


@pytest.mark.parametrize("port", ["http_port", "admin_port"])
def test_what_is_referred_to_is_there_and_nothing_else(iris: Server, port: str) -> None:
    found = document(getattr(iris, port))
    named = {ref.removeprefix("#/components/") for ref in refs(found)}
    assert named == {f"{kind}/{name}" for kind, items in found["components"].items() for name in items}
    identities = [operation["operationId"] for item in found["paths"].values() for key, operation in item.items()
                  if key != "parameters"]  # fmt: skip
    assert len(set(identities)) == len(identities)


def test_the_example_of_each_model_is_a_request_that_it_answers(
    models: Path, tmp_path: Path, start_repository: Callable[..., ServerThread]
) -> None:
    for name in ("iris", "text", "echo", "half"):
        shutil.copytree(models / name, tmp_path / name)
    server = start_repository(tmp_path).ready()
    found = document(server.http_port)
    body = found["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {"iris", "text", "echo"}, "JSON cannot carry what the model 'half' takes"
    for name, example in body["examples"].items():
        assert server.infer(example["value"], model=name).status == 200
    assert found["components"]["parameters"]["model"]["schema"]["enum"] == ["echo", "half", "iris", "text"]
    write_scaled(tmp_path / "added")
    assert server.command("models/added/load").status == 200
    assert "added" in document(server.http_port)["components"]["parameters"]["model"]["schema"]["enum"]


def test_a_model_named_stats_hides_the_statistics_of_all(start_server: Start) -> None:
    server = start_server("iris", "--model-name", "stats").ready()
    assert "/v2/models/stats" not in document(server.http_port)["paths"]


def test_a_document_is_there_before_the_model(start_server: Start, models: Path) -> None:
    server = start_server("iris").start()
    assert document(server.http_port)["paths"]
    server.wait_log("ready")


BAD_COMMANDS = [
    ("index", {"ready": 1}, "'ready' must be true or false"),
    ("index", [], "must be a JSON object"),
    ("models/scaled/load", {"parameters": []}, "'parameters' of the request must be an object"),
    ("models/scaled/load", {"parameters": {"a": "b"}}, "parameters are not supported"),
    ("models/scaled/unload", {"parameters": {"unload_dependents": None}}, "must be a string, number or"),
]


@pytest.mark.parametrize(("path", "body", "message"), BAD_COMMANDS)
def test_commands_that_the_document_rules_out_are_refused(
    path: str, body: object, message: str, tmp_path: Path, start_repository: Callable[..., ServerThread]
) -> None:
    write_scaled(tmp_path / "scaled")
    server = start_repository(tmp_path).ready()
    reply = server.command(path, body)
    assert (reply.status, message in reply.json["error"]) == (400, True)
    assert server.get("/v2/models/scaled/ready").status == 200
