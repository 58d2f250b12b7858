"""Tokens: who is let in, what stays open, and how tokens are exchanged without anyone being turned away."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from penstock_runtime.server.security.guard import Guard
from penstock_runtime.server.security.tokens import MAX_TOKENS, Tokens
from penstock_runtime.server.settings import SettingsError
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, Reply, Server, ServerProcess, call, iris_request
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.secret_files import SecretMount

OLD, NEW, OTHER = "old-" + 28 * "a", "new-" + 28 * "b", "other" + 28 * "c"


@pytest.fixture
def mount(tmp_path: Path) -> SecretMount:
    mounted = SecretMount(tmp_path / "tokens")
    mounted.write(data=OLD.encode(), admin=OTHER.encode())
    return mounted


def tokens(mount: SecretMount) -> tuple[str, ...]:
    return "--token-file", str(mount.folder / "data"), "--admin-token-file", str(mount.folder / "admin")


def infer(server: Server, authorization: str | None) -> Reply:
    return server.infer(iris_request(SETOSA), **({} if authorization is None else {"Authorization": authorization}))


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="penstock"'),
        ("", 'Bearer realm="penstock"'),
        ("Basic " + base64.b64encode(f"x:{OLD}".encode()).decode(), 'Bearer realm="penstock"'),
        (f"Bearer {NEW}", 'Bearer realm="penstock", error="invalid_token"'),
        ("Bearer", 'Bearer realm="penstock", error="invalid_token"'),
        (f"Bearer {OLD[:-1]}", 'Bearer realm="penstock", error="invalid_token"'),
        (f"Bearer {OLD} {OLD}", 'Bearer realm="penstock", error="invalid_token"'),
        (f"Bearer {OTHER}", 'Bearer realm="penstock", error="invalid_token"'),
    ],
)
def test_without_a_valid_token_nobody_is_answered_and_nothing_is_counted(
    start_server: Start, mount: SecretMount, authorization: str | None, challenge: str
) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    refused = infer(server, authorization)
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == challenge
    assert set(refused.json) == {"error"}
    assert set(requests_by_outcome(server).values()) == {0}
    assert infer(server, f"Bearer {OLD}").status == 200
    assert infer(server, f"bearer  {OLD}").status == 200
    assert requests_by_outcome(server)["ok"] == 2


def test_probes_and_metrics_need_none(start_server: Start, mount: SecretMount) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    assert server.get("/v2/health/live").status == 200
    assert server.get("/v2/health/ready").status == 200
    assert call(server.metrics_port, "GET", "/metrics").status == 200
    for path in ("/v2", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/stats", "/v2/health/other", "/nothing"):
        assert server.get(path).status == 401, path


def test_the_admin_port_has_tokens_of_its_own(start_server: Start, mount: SecretMount) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    for path, body in (("/v2/models/m/feedback", []), ("/v2/repository/index", {})):
        assert call(server.admin_port, "POST", path, body).status == 401
        assert call(server.admin_port, "POST", path, body, {"Authorization": f"Bearer {OLD}"}).status == 401
        assert call(server.admin_port, "POST", path, body, {"Authorization": f"Bearer {OTHER}"}).status == 200


def test_tokens_are_exchanged_step_by_step(start_server: Start, mount: SecretMount) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    mount.write(data=f"# both\n{OLD}\n\n  {NEW}  \r\n".encode(), admin=OTHER.encode())
    assert server.wait_log("tokens changed")["tokens"] == 2
    assert [infer(server, f"Bearer {token}").status for token in (OLD, NEW)] == [200, 200]
    mount.write(data=NEW.encode(), admin=OTHER.encode())
    server.wait_log("tokens changed")
    assert [infer(server, f"Bearer {token}").status for token in (OLD, NEW)] == [401, 200]
    assert not any(token in json.dumps(line) for line in server.log for token in (OLD, NEW, OTHER))


@pytest.mark.parametrize("text", [b"", b"# nobody\n", b"two words\n", NEW.encode() + b"\n\xff\n"])
def test_a_bad_file_leaves_the_old_tokens(mount: SecretMount, caplog: pytest.LogCaptureFixture, text: bytes) -> None:
    known = Tokens(mount.folder / "data")
    mount.write(data=text)
    with caplog.at_level(logging.INFO, "penstock_runtime"):
        assert not known.refresh()
        assert not known.refresh()
    assert known.allow(OLD.encode())
    assert not known.allow(NEW.encode())
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_file_that_vanishes_leaves_the_old_tokens(mount: SecretMount, caplog: pytest.LogCaptureFixture) -> None:
    known = Tokens(mount.folder / "data")
    mount.write(admin=b"x")
    for _ in range(2):
        assert not known.refresh()
    assert known.allow(OLD.encode())
    assert len(caplog.records) == 1
    mount.write(data=NEW.encode())
    assert known.refresh()
    assert known.allow(NEW.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n# none\n", "there is no token in it"),
        (b"fine\nnot fine\n", "line 2 is no token"),
        (b"\n".join(b"token-%d" % number for number in range(MAX_TOKENS + 1)), "101 tokens; at most 100"),
    ],
)
def test_a_bad_file_ends_the_start(tmp_path: Path, models: Path, text: bytes, message: str) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(text)
    with pytest.raises(SettingsError, match=message) as raised:
        Tokens(file)
    assert "fine" not in str(raised.value)
    told = tmp_path / "termination"
    server = ServerProcess(
        "--model-path", str(models / "iris"), "--termination-log", str(told), "--token-file", str(file)
    )
    assert server.wait_exit() == 1
    assert json.loads(told.read_text())["reason"] == "InvalidConfiguration"


async def test_browsers_send_the_token_as_a_password_to_pages_alone(mount: SecretMount) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        served.append(scope["path"])  # type: ignore[index]

    async def nothing() -> dict[str, object]:
        raise AssertionError("a refused request's body is not read")

    async def send(message: object) -> None:
        sent.append(message)  # type: ignore[arg-type]

    served: list[str] = []
    sent: list[dict[str, object]] = []
    guard = Guard(app, Tokens(mount.folder / "data"), pages=("/", "/try/"))
    secret = base64.b64encode(f"anyone:{OLD}".encode())
    for path in ("/", "/try/m", "/other", "/try"):
        await guard({"path": path, "headers": [(b"authorization", b"Basic " + secret)]}, nothing, send)
    await guard({"path": "/", "headers": [(b"authorization", b"Basic !!!")]}, nothing, send)
    assert served == ["/", "/try/m"]
    challenges = [[value for name, value in message["headers"] if name == b"www-authenticate"]  # type: ignore[attr-defined]
                  for message in sent if message["type"] == "http.response.start"]  # fmt: skip
    assert [len(found) for found in challenges] == [1, 1, 2]
