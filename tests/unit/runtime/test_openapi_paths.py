"""No path is forgotten: what a port answers is found by trying, and is in its document."""

from __future__ import annotations

import ast
import http.client
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.process import DEADLINE, SOURCES, Server, call
from tests.unit.runtime.test_openapi import document
from tests.unit.runtime.test_workers import start

APPS = SOURCES / "penstock_runtime/server"
METHODS = frozenset({"get", "head", "post", "put", "delete"})
TOKEN = "t" * 32
_SEGMENT = re.compile(r"[a-z0-9_.]+")


def texts() -> set[str]:
    """Return the texts in the server's sources that may be paths or parts of them, but for those of documents."""
    found: set[str] = set()
    for file in APPS.rglob("*.py"):
        if "openapi" not in file.parts:
            nodes = ast.walk(ast.parse(file.read_text()))
            values = {node.value for node in nodes if isinstance(node, ast.Constant)}
            found |= {text for text in values if isinstance(text, str) and (text[:1] == "/" or len(text) <= 20)}
    return found


def written_out(text: str) -> list[str]:
    """Return the beginnings of a path, or of an expression for one with all that is optional, up to a choice."""
    found = [""]
    for part in re.sub(r"\(\?:|\)\?", "", text.replace("([^/]+)", "m")).split("/")[1:]:
        if _SEGMENT.fullmatch(part) is None:
            break
        found.append(f"{found[-1]}/{part}")
    return found


def url_of(path: str) -> str:
    return path.replace("{model}", "m").replace("{version}", "1")


def stands_for(template: str, path: str) -> bool:
    """Return whether `template`, in which names stand in braces, is about `path`."""
    return re.fullmatch(re.sub(r"\\{[a-z]+\\}", "[^/]+", re.escape(template)), path) is not None


def found_paths(port: int, described: dict[str, Any]) -> dict[str, set[str]]:
    """Return the methods of every path that leads somewhere.

    Tried are the paths in the sources, and each word of the sources behind each beginning of a known path.
    """
    known = texts()
    words = {"", "1", *(word for text in known if text[:1] == "/" or _SEGMENT.fullmatch(text)
                        for word in _SEGMENT.findall(text))}  # fmt: skip
    begun = {start for path in (*known, *map(url_of, described)) if path[:1] == "/" for start in written_out(path)}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)

    def ask(method: str, path: str) -> http.client.HTTPResponse:
        connection.request(method, path)
        reply = connection.getresponse()
        reply.read()
        return reply

    try:
        found = {}
        for path in sorted({f"{start}/{word}" for start in begun for word in words} | (begun - {""})):
            if ask("GET", path).status != 404:
                allowed = ask("PATCH", path).getheader("allow")
                assert allowed is not None, f"PATCH {path} is no 405"
                found[path] = {method.lower() for method in allowed.split(", ")}
        return found
    finally:
        connection.close()


@pytest.mark.parametrize("port", ["http_port", "admin_port"])
def test_every_path_and_method_is_in_the_document(iris: Server, port: str) -> None:
    described = document(getattr(iris, port))["paths"]
    seen = set()
    for path, methods in found_paths(getattr(iris, port), described).items():
        # Where it matters which of them it is, the exact one is meant (OpenAPI 3.1, Paths Object).
        template = path if path in described else next((each for each in described if stands_for(each, path)), None)
        assert template is not None, f"{path} is not in the document"
        assert methods == METHODS & set(described[template]), path
        seen.add(template)
    assert seen == set(described)


def test_with_workers_the_documents_are_the_same(iris: Server, start_process: StartProcess) -> None:
    server = start(start_process, "iris")
    assert document(server.http_port) == document(iris.http_port)
    assert document(server.admin_port) == document(iris.admin_port)


def test_a_port_with_tokens_says_so(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    server = start_server("iris", "--token-file", str(file), "--admin-token-file", str(file)).ready()
    for port, unguarded in ((server.http_port, {"/v2/health/live", "/v2/health/ready"}), (server.admin_port, set())):
        reply = call(port, "GET", "/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
        assert set(reply.json["components"]["securitySchemes"]) >= {"bearer"}
        for path, item in reply.json["paths"].items():
            for method in METHODS & set(item):
                refused = call(port, method.upper(), url_of(path))
                status = refused.status
                assert (status == 401) == ("401" in item[method]["responses"]) == (path not in unguarded), path
                schemes = {name for each in item[method].get("security", []) for name in each}
                assert ("bearer" in schemes) == (status == 401), path
                # The last of the challenges, if there are several.
                challenge = refused.headers.get("www-authenticate", "")
                assert ("basic" in schemes) == challenge.startswith("Basic"), path


def test_a_port_without_tokens_speaks_of_none(iris: Server) -> None:
    for port in (iris.http_port, iris.admin_port):
        found = document(port)
        assert "securitySchemes" not in found["components"]
        assert not any("401" in item[method]["responses"] for item in found["paths"].values()
                       for method in METHODS & set(item))  # fmt: skip
