"""Fetching over HTTP: whole, verified, patient with passing failures, and silent about secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_runtime.fetch import download
from tests.unit.runtime.fetching import Place, make_place
from tests.unit.runtime.file_server import (
    Action,
    FileServer,
    chunked,
    content,
    cut_off,
    cut_off_chunk,
    hang_up,
    redirect,
    status,
    with_login,
)

pytestmark = pytest.mark.usefixtures("quiet_logs")

BODY = b"model bytes " * 1000
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
OTHER = "sha256:" + "0" * 64


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


@pytest.mark.parametrize("action", [content(BODY), chunked(BODY)])
def test_a_file_is_fetched_hashed_and_reported(
    server: FileServer, place: Place, action: Action, capsys: pytest.CaptureFixture[str]
) -> None:
    server.actions["/m/fraud.onnx"] = [action]
    code, report = place.fetch(f"{server.url}/m/fraud.onnx")
    assert (code, report) == (0, {"digest": DIGEST, "bytes": len(BODY), "files": 1})
    assert place.files() == {"model.onnx": BODY}
    assert DIGEST in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "layout", "expected"),
    [
        ("/fraud.onnx", "flat", "model.onnx"),
        ("/fraud", "flat", "model.onnx"),
        ("/fraud.v7", "flat", "model.onnx"),
        ("/saved_model.pb", "flat", "saved_model.pb"),
        ("/saved_model.pb", "numeric-version", "1/saved_model.pb"),
        ("/fraud.onnx", "numeric-version", "1/model.onnx"),
    ],
)
def test_where_the_file_is_put(server: FileServer, place: Place, path: str, layout: str, expected: str) -> None:
    server.actions[path] = [content(BODY)]
    assert place.fetch(f"{server.url}{path}", "--layout", layout)[0] == 0
    assert place.files() == {expected: BODY}


def test_a_fetch_replaces_what_was_there(server: FileServer, place: Place) -> None:
    server.actions["/m.onnx"] = [content(BODY), content(b"new")]
    place.fetch(f"{server.url}/m.onnx")
    assert place.fetch(f"{server.url}/m.onnx")[0] == 0
    assert place.files() == {"model.onnx": b"new"}


@pytest.mark.parametrize(
    "failure", [status(500), status(503), status(429), hang_up, cut_off(BODY[:50], len(BODY)), cut_off_chunk(BODY)]
)
def test_a_passing_failure_is_tried_again(server: FileServer, place: Place, failure: Action) -> None:
    server.actions["/m.onnx"] = [failure, failure, content(BODY)]
    code, report = place.fetch(f"{server.url}/m.onnx")
    assert (code, report["digest"]) == (0, DIGEST)
    assert place.files() == {"model.onnx": BODY}


@pytest.mark.parametrize(
    ("action", "reason", "words", "requests"),
    [
        (status(404), "ModelNotFound", "does not exist (HTTP 404)", 1),
        (status(403), "AccessDenied", "check the credentials", 1),
        (status(401), "AccessDenied", "refuses access (HTTP 401)", 1),
        (status(418), "SourceUnreachable", "HTTP 418", 1),
        (status(500), "SourceUnreachable", "fails (HTTP 500)", 3),
        (cut_off(BODY[:50], len(BODY)), "SourceUnreachable", "50 of 12000 bytes came", 3),
        (cut_off_chunk(BODY), "SourceUnreachable", "ended before the file did", 3),
        (hang_up, "SourceUnreachable", "cannot be", 3),
        (content(b""), "InvalidModel", "is empty (0 bytes)", 1),
        (content(b"<html>", "text/html; charset=utf-8"), "InvalidModel", "a web page, not a model", 1),
        (content(b"x"), "DigestMismatch", "spec.model.digest asks for", 1),
        (redirect("ftp://127.0.0.1/m"), "SourceUnreachable", "redirects to an address that is not", 1),
    ],
)
def test_a_lasting_failure_has_its_reason_and_leaves_nothing(
    server: FileServer, place: Place, action: Action, reason: str, words: str, requests: int
) -> None:
    server.actions["/m.onnx"] = [action]
    found = place.refused(f"{server.url}/m.onnx", "--attempts", "3", "--digest", DIGEST)
    assert found[0] == reason
    assert words in found[1]
    assert len(server.seen) == requests


def test_a_server_that_is_not_there(place: Place) -> None:
    with FileServer() as gone:
        pass
    reason, message = place.refused(f"{gone.url}/m.onnx", "--attempts", "2")
    assert (reason, message) == ("SourceUnreachable", f"{gone.url}/m.onnx cannot be reached: Connection refused")


def test_a_pinned_digest_that_fits(server: FileServer, place: Place) -> None:
    server.actions["/m.onnx"] = [content(BODY)]
    assert place.fetch(f"{server.url}/m.onnx", "--digest", DIGEST.upper().replace("SHA", "sha"))[0] == 0


def test_a_revision_is_locked_to_its_first_load(server: FileServer, place: Place) -> None:
    server.actions["/m.onnx"] = [content(BODY)]
    place.put_lock(OTHER)
    reason, message = place.refused(f"{server.url}/m.onnx")
    assert reason == "SourceChanged"
    assert OTHER in message
    assert DIGEST in message
    place.put_lock(DIGEST)
    assert place.fetch(f"{server.url}/m.onnx")[0] == 0


def test_what_is_here_and_locked_is_verified_and_not_fetched_again(server: FileServer, place: Place) -> None:
    server.actions["/m.onnx"] = [content(BODY)]
    place.put_lock(DIGEST)
    first = place.fetch(f"{server.url}/m.onnx")
    assert place.fetch(f"{server.url}/m.onnx") == first
    assert len(server.seen) == 1
    (place.dest / "model.onnx").write_bytes(b"tampered")
    assert place.fetch(f"{server.url}/m.onnx") == first
    assert len(server.seen) == 2
    assert place.files() == {"model.onnx": BODY}


SECRET = "s3cr3t"


def test_secrets_in_a_uri_are_used_but_never_told(
    server: FileServer, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    server.actions["/m.onnx"] = [with_login("dTpzM2NyM3Q=", content(BODY))]
    address = server.url.removeprefix("http://")
    uri = f"http://u:{SECRET}@{address}/m.onnx?sig={SECRET}"
    assert place.fetch(uri)[0] == 0
    assert server.seen[0][0] == f"/m.onnx?sig={SECRET}"
    wrong = place.refused(f"http://u:wrong{SECRET}@{address}/m.onnx?sig={SECRET}")
    assert wrong[0] == "AccessDenied"
    assert SECRET not in str(wrong) + str(capsys.readouterr())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"HTTP_BEARER_TOKEN": "token"}, "Bearer token"),
        ({"HTTP_USERNAME": "u", "HTTP_PASSWORD": SECRET}, "Basic dTpzM2NyM3Q="),
    ],
)
def test_credentials_from_a_secret_stay_with_the_host_they_are_for(
    server: FileServer, place: Place, files: dict[str, str], expected: str
) -> None:
    with FileServer() as other:
        other.actions["/moved.onnx"] = [content(BODY)]
        server.actions["/m.onnx"] = [redirect(f"{server.url}/next.onnx")]
        server.actions["/next.onnx"] = [redirect(f"{other.url}/moved.onnx")]
        place.put_credentials(**files)
        assert place.fetch(f"{server.url}/m.onnx")[0] == 0
        assert [headers.get("Authorization") for _, headers in server.seen] == [expected, expected]
        assert "Authorization" not in other.seen[0][1]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/m", "'ftp' is not supported; use http://, https://, s3://"),
        ("model.onnx", "uri scheme '' is not supported"),
        ("s3:///key", "lacks its first part"),
        ("pvc://claim/../../etc/passwd", "must not contain '..'"),
        ("s3://bucket/a/%2e%2e/b", "must not contain '..'"),
        ("http://[::1", "cannot be read"),
        ("http://host:99999/m", "cannot be read"),
    ],
)
def test_uris_that_are_not_understood(place: Place, uri: str, words: str) -> None:
    reason, message = place.refused(uri)
    assert reason == "UnsupportedSource"
    assert words in message


def test_a_path_may_be_quoted_or_not(server: FileServer, place: Place) -> None:
    server.actions["/my%20model.onnx"] = [content(BODY)]
    for name in ("my model.onnx", "my%20model.onnx"):
        assert place.fetch(f"{server.url}/{name}")[0] == 0


def test_progress_is_logged(
    server: FileServer, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 0.0)
    server.actions["/m.onnx"] = [content(b"x" * 3_000_000)]
    assert place.fetch(f"{server.url}/m.onnx")[0] == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["bytes"] for line in lines if "bytes" in line][-2:] == [3_000_000, 3_000_000]


def test_a_digest_that_is_none_is_refused(place: Place) -> None:
    assert place.refused("http://127.0.0.1:9/m", "--digest", "md5:abc")[0] == "DigestMismatch"


def test_a_model_larger_than_the_volume_is_refused_before_it_is_fetched(server: FileServer, place: Place) -> None:
    server.actions["/m.onnx"] = [cut_off(b"x", 2**60)]
    reason, message = place.refused(f"{server.url}/m.onnx")
    assert reason == "NoSpace"
    assert f"the model has {2**60} bytes" in message
