"""TLS: what is served with it, and certificates exchanged under load without a failed request."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from penstock_runtime.server.security.identity import Identity
from penstock_runtime.server.settings import SettingsError
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.process import DEADLINE, SETOSA, ServerProcess, ServerThread, call, iris_request
from tests.unit.runtime.secret_files import SecretMount, connect, make_pair, shown_name, trusting

BODY = json.dumps(iris_request(SETOSA)).encode()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, bytes]]:
    folder = tmp_path_factory.mktemp("pairs")
    return [make_pair(folder, f"pair-{number}") for number in range(3)]


@pytest.fixture
def mount(tmp_path: Path, pairs: list[tuple[bytes, bytes]]) -> SecretMount:
    mounted = SecretMount(tmp_path / "tls")
    mounted.write(tls_crt=pairs[0][0], tls_key=pairs[0][1])
    return mounted


def tls(mount: SecretMount, ports: str = "http") -> tuple[str, ...]:
    files = mount.folder / "tls.crt", mount.folder / "tls.key"
    return "--tls-cert-file", str(files[0]), "--tls-key-file", str(files[1]), "--tls-ports", ports


def ask(connection: http.client.HTTPSConnection) -> int:
    connection.request("POST", "/v2/models/m/infer", BODY)
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_requests_over_tls_are_answered_with_and_without_a_server_name(
    start_server: Start, mount: SecretMount, pairs: list[tuple[bytes, bytes]], host: str
) -> None:
    server = start_server("iris", *tls(mount)).ready()
    connection = connect(server.http_port, trusting(pairs[0][0]), host)
    assert ask(connection) == 200
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.version() == "TLSv1.3"
    connection.close()
    assert call(server.metrics_port, "GET", "/metrics").status == 200, "only the ports asked for speak TLS"
    assert server.feedback([]).status == 200


def test_every_port_can_speak_it(start_server: Start, mount: SecretMount, pairs: list[tuple[bytes, bytes]]) -> None:
    server = start_server("iris", *tls(mount, "http,admin,metrics")).ready()
    for port in (server.http_port, server.admin_port, server.metrics_port):
        connection = connect(port, trusting(pairs[0][0]))
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == (200 if port == server.metrics_port else 404)
        connection.close()


def test_a_client_without_tls_harms_nobody(
    start_server: Start, mount: SecretMount, pairs: list[tuple[bytes, bytes]]
) -> None:
    server = start_server("iris", *tls(mount)).ready()
    with socket.create_connection(("127.0.0.1", server.http_port), DEADLINE) as plain:
        plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            while plain.recv(1000):
                pass
    connection = connect(server.http_port, trusting(pairs[0][0]))
    assert ask(connection) == 200
    connection.close()


class Load:
    """Requests one after another on one connection, or each on a new one, until it is stopped."""

    def __init__(self, port: int, context: ssl.SSLContext, *, keep: bool) -> None:
        self.statuses: list[int] = []
        self.names: set[str] = set()
        self.error: Exception | None = None
        self._port, self._context, self._keep = port, context, keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = connect(self._port, self._context)
        try:
            while not self._stop.is_set() and len(self.statuses) < 100_000:
                self.statuses.append(ask(connection))
                self.names.add(shown_name(connection))
                if not self._keep:
                    connection.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            self.error = error
        finally:
            connection.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE)


def test_certificates_are_exchanged_under_load_without_a_failed_request(
    start_server: Start, mount: SecretMount, pairs: list[tuple[bytes, bytes]]
) -> None:
    server = start_server("iris", *tls(mount)).ready()
    context = trusting(*(certificate for certificate, _ in pairs))
    loads = [Load(server.http_port, context, keep=keep) for keep in (True, True, False, False)]
    try:
        for certificate, key in (pairs[1], pairs[2], pairs[0], pairs[1]):
            _wait_for_more(loads)
            mount.write(tls_crt=certificate, tls_key=key)
            server.wait_log("TLS certificate changed")
        _wait_for_more(loads)
    finally:
        for load in loads:
            load.stop()
    assert [load.error for load in loads] == [None] * 4
    assert {status for load in loads for status in load.statuses} == {200}
    assert [load.names for load in loads[:2]] == [{"pair-0"}] * 2, "connections that stand are not touched"
    assert {name for load in loads[2:] for name in load.names} == {"pair-0", "pair-1", "pair-2"}


def _wait_for_more(loads: list[Load]) -> None:
    goals = [len(load.statuses) + 3 for load in loads]
    end = time.monotonic() + DEADLINE
    while any(len(load.statuses) < goal for load, goal in zip(loads, goals, strict=True)):
        assert time.monotonic() < end
        assert not any(load.error for load in loads), [load.error for load in loads]
        time.sleep(0.01)


def test_a_bad_new_pair_is_logged_once_and_the_old_one_stays(
    start_server: Start, mount: SecretMount, pairs: list[tuple[bytes, bytes]]
) -> None:
    server = start_server("iris", *tls(mount)).ready()
    mount.write(tls_crt=pairs[1][0], tls_key=pairs[2][1])
    line = server.wait_log("the TLS files changed and are no pair; the old ones stay")
    assert line["level"] == "error"
    assert "tls.crt" in line["error"]
    assert "key values mismatch" in line["error"]
    connection = connect(server.http_port, trusting(pairs[0][0]))
    assert shown_name(connection) == "pair-0"
    connection.close()
    mount.write(tls_crt=pairs[1][0], tls_key=pairs[1][1])
    server.wait_log("TLS certificate changed")
    assert [each["msg"] for each in server.log].count(line["msg"]) == 1
    connection = connect(server.http_port, trusting(pairs[1][0]))
    assert shown_name(connection) == "pair-1"
    connection.close()


def test_files_that_vanish_and_come_back_change_nothing(mount: SecretMount, pairs: list[tuple[bytes, bytes]]) -> None:
    identity = Identity(mount.folder / "tls.crt", mount.folder / "tls.key")
    mount.write(tls_crt=pairs[1][0])
    assert not identity.refresh()
    assert identity.pair == pairs[0]
    mount.write(tls_crt=pairs[0][0], tls_key=pairs[0][1])
    assert not identity.refresh()
    mount.write(tls_crt=pairs[1][0], tls_key=pairs[1][1])
    assert identity.refresh()
    assert identity.pair == pairs[1]


def test_an_idle_connection_does_not_hold_up_a_drain(
    start_process: StartProcess, mount: SecretMount, pairs: list[tuple[bytes, bytes]]
) -> None:
    arguments = (*tls(mount), "--drain-seconds", "0", "--shutdown-seconds", "30")
    server = start_process("iris", *arguments).ready()
    connection = connect(server.http_port, trusting(pairs[0][0]))
    assert ask(connection) == 200
    begun = time.monotonic()
    server.terminate()
    assert server.wait_exit() == 0
    assert time.monotonic() - begun < 15
    assert server.log[-1]["finished"] is True
    connection.close()


def test_a_pair_that_cannot_be_used_ends_the_start(
    tmp_path: Path, models: Path, mount: SecretMount, pairs: list[tuple[bytes, bytes]]
) -> None:
    mount.write(tls_crt=pairs[0][0], tls_key=pairs[1][1])
    told = tmp_path / "termination"
    server = ServerProcess("--model-path", str(models / "iris"), "--termination-log", str(told), *tls(mount))
    assert server.wait_exit() == 1
    message = json.loads(told.read_text())
    assert message["reason"] == "InvalidConfiguration"
    assert "key values mismatch" in message["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tls_crt": b"nothing"}, "are not a PEM certificate and its private key"),
        ({"tls_key": b"nothing"}, "are not a PEM certificate and its private key"),
        ({"tls_crt": b""}, "are not a PEM certificate and its private key"),
    ],
)
def test_what_is_no_pem(
    mount: SecretMount, pairs: list[tuple[bytes, bytes]], change: dict[str, bytes], message: str
) -> None:
    mount.write(**{"tls_crt": pairs[0][0], "tls_key": pairs[0][1], **change})
    with pytest.raises(SettingsError, match=message):
        Identity(mount.folder / "tls.crt", mount.folder / "tls.key")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*absent\.crt: No such file"):
        Identity(tmp_path / "absent.crt", tmp_path / "absent.key")


def test_nobody_is_asked_for_a_password(tmp_path: Path, mount: SecretMount) -> None:
    certificate, key = make_pair(tmp_path, "guarded", password="secret")
    mount.write(tls_crt=certificate, tls_key=key)
    with pytest.raises(SettingsError, match="the private key is encrypted"):
        Identity(mount.folder / "tls.crt", mount.folder / "tls.key")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tls-cert-file", "x"), "go together"),
        (("--tls-cert-file", "x", "--tls-key-file", "y", "--tls-ports", "http,grpc"), "is not made of"),
    ],
)
def test_options_that_contradict_each_other(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ServerThread("--model-path", "m.onnx", *arguments)
