"""Tokens and TLS of the gRPC port: those of the data port, exchanged under load without a failed call."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.grpc_client import Client, iris_raw
from tests.unit.runtime.process import DEADLINE, SETOSA, ServerThread
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.secret_files import SecretMount, make_pair

OLD, NEW = "old-" + 28 * "a", "new-" + 28 * "b"
REQUEST = iris_raw(SETOSA)
Pairs = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    return [make_pair(folder, f"pair-{number}") for number in range(2)]


@pytest.fixture
def mount(tmp_path: Path, pairs: Pairs) -> SecretMount:
    mounted = SecretMount(tmp_path / "secret")
    mounted.write(tls_crt=pairs[0][0], tls_key=pairs[0][1], tokens=OLD.encode())
    return mounted


def tls(mount: SecretMount, ports: str = "http") -> tuple[str, ...]:
    files = mount.folder / "tls.crt", mount.folder / "tls.key"
    return "--tls-cert-file", str(files[0]), "--tls-key-file", str(files[1]), "--tls-ports", ports


def tokens(mount: SecretMount) -> tuple[str, ...]:
    return "--token-file", str(mount.folder / "tokens")


@pytest.mark.parametrize(
    ("authorization", "details"),
    [
        (None, "a token is needed: Authorization: Bearer <token>"),
        ("", "a token is needed: Authorization: Bearer <token>"),
        ("Basic eDp5", "a token is needed: Authorization: Bearer <token>"),
        (f"Bearer {NEW}", "the token is not valid"),
        ("Bearer", "the token is not valid"),
        (f"Bearer {OLD[:-1]}", "the token is not valid"),
        (f"Bearer {OLD} {OLD}", "the token is not valid"),
    ],
)
def test_without_a_valid_token_nobody_is_answered_and_nothing_is_counted(
    start_server: Start, mount: SecretMount, authorization: str | None, details: str
) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    given = {} if authorization is None else {"authorization": authorization}
    with Client(server.grpc_port) as client:
        refused = client.infer(REQUEST, DEADLINE, **given)
        assert (refused.code, refused.details, refused.metadata) == (StatusCode.UNAUTHENTICATED, details, {})
        assert set(requests_by_outcome(server).values()) == {0}
        for scheme in ("Bearer ", "bearer  "):
            assert client.infer(REQUEST, authorization=scheme + OLD).code == StatusCode.OK
    assert requests_by_outcome(server)["ok"] == 2


def test_probes_need_none_and_all_else_does(start_server: Start, mount: SecretMount) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    with Client(server.grpc_port) as client:
        assert client.check().answer.status == health_pb2.HealthCheckResponse.SERVING
        assert next(client.watch("m")).status == health_pb2.HealthCheckResponse.SERVING
        assert client.ask("ServerLive").answer.live
        assert client.ask("ServerReady").answer.ready
        for name, request in (
            ("ServerMetadata", None), ("ModelReady", pb.ModelReadyRequest(name="m")), ("ModelStatistics", None),
            ("ModelMetadata", pb.ModelMetadataRequest(name="m")), ("RepositoryIndex", None),
        ):  # fmt: skip
            assert client.ask(name, request).code == StatusCode.UNAUTHENTICATED, name
        assert client.call("/no/Method", b"", pb.ServerLiveResponse).code == StatusCode.UNAUTHENTICATED
        assert client.reflect(iter(())).code() == StatusCode.UNAUTHENTICATED


def test_a_token_is_exchanged_while_calls_go_on(start_server: Start, mount: SecretMount, pairs: Pairs) -> None:
    server = start_server("iris", *tokens(mount)).ready()
    files = {"tls_crt": pairs[0][0], "tls_key": pairs[0][1]}
    with Client(server.grpc_port) as client:

        def wait_for(token: str, code: StatusCode) -> None:
            end = time.monotonic() + DEADLINE
            while client.infer(REQUEST, authorization=f"Bearer {token}").code != code:
                assert time.monotonic() < end

        mount.write(**files, tokens=f"{OLD}\n{NEW}\n".encode())
        wait_for(NEW, StatusCode.OK)
        assert client.infer(REQUEST, authorization=f"Bearer {OLD}").code == StatusCode.OK
        mount.write(**files, tokens=NEW.encode())
        wait_for(OLD, StatusCode.UNAUTHENTICATED)
        assert client.infer(REQUEST, authorization=f"Bearer {NEW}").code == StatusCode.OK


def test_calls_over_tls_are_answered_and_others_are_not(start_server: Start, mount: SecretMount, pairs: Pairs) -> None:
    server = start_server("iris", *tls(mount), *tokens(mount)).ready()
    with Client(server.grpc_port, pairs[0][0]) as client:
        assert client.infer(REQUEST, authorization=f"Bearer {OLD}").code == StatusCode.OK
        assert client.infer(REQUEST).code == StatusCode.UNAUTHENTICATED
    with Client(server.grpc_port) as plain:
        assert plain.infer(REQUEST, timeout=5, authorization=f"Bearer {OLD}").code == StatusCode.UNAVAILABLE
    with Client(server.grpc_port, pairs[1][0]) as stranger:
        assert stranger.infer(REQUEST, timeout=5).code == StatusCode.UNAVAILABLE


def test_without_tls_for_the_data_port_there_is_none(start_server: Start, mount: SecretMount) -> None:
    server = start_server("iris", *tls(mount, "metrics")).ready()
    with Client(server.grpc_port) as client:
        assert client.infer(REQUEST).code == StatusCode.OK


class Load:
    """Calls one after another, over one connection or each over a new one, until it is stopped."""

    def __init__(self, port: int, trusted: bytes, *, keep: bool) -> None:
        self.codes: list[StatusCode] = []
        self._port, self._trusted, self._keep = port, trusted, keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with Client(self._port, self._trusted) as client:
                self.codes.append(client.infer(REQUEST).code)
                while self._keep and not self._stop.is_set():
                    self.codes.append(client.infer(REQUEST).code)

    def reach(self, more: int) -> None:
        """Wait for so many further answers."""
        goal, end = len(self.codes) + more, time.monotonic() + DEADLINE
        while len(self.codes) < goal:
            assert time.monotonic() < end
            time.sleep(0.01)

    def stop(self) -> set[StatusCode]:
        """Return how the calls ended."""
        self._stop.set()
        self._thread.join(DEADLINE)
        return set(self.codes)


def shown(server: ServerThread, certificate: bytes) -> bool:
    """Return whether a new connection is shown `certificate`."""
    with Client(server.grpc_port, certificate) as client:
        return client.check().code == StatusCode.OK


def test_certificates_are_exchanged_under_load_without_a_failed_call(
    start_server: Start, mount: SecretMount, pairs: Pairs
) -> None:
    server = start_server("iris", *tls(mount)).ready()
    both = pairs[0][0] + pairs[1][0]
    loads = [Load(server.grpc_port, both, keep=keep) for keep in (True, False)]
    try:
        for load in loads:
            load.reach(20)
        assert (shown(server, pairs[0][0]), shown(server, pairs[1][0])) == (True, False)
        mount.write(tls_crt=pairs[1][0], tls_key=pairs[1][1], tokens=b"x")
        server.wait_log("TLS certificate changed")
        assert (shown(server, pairs[0][0]), shown(server, pairs[1][0])) == (False, True)
        # One that is no pair changes nothing.
        mount.write(tls_crt=pairs[0][0], tls_key=pairs[1][1], tokens=b"x")
        server.wait_log("the TLS files changed and are no pair; the old ones stay")
        assert shown(server, pairs[1][0])
        for load in loads:
            load.reach(20)
    finally:
        codes = [load.stop() for load in loads]
    assert codes == [{StatusCode.OK}] * 2


def test_every_worker_asks_for_tokens_and_speaks_tls(
    start_process: StartProcess, mount: SecretMount, pairs: Pairs
) -> None:
    server = start_process("iris", *tls(mount), *tokens(mount), "--workers", "2").ready()
    for _ in range(8):
        with Client(server.grpc_port, pairs[0][0]) as client:
            assert client.infer(REQUEST).code == StatusCode.UNAUTHENTICATED
            assert client.infer(REQUEST, authorization=f"Bearer {OLD}").code == StatusCode.OK
