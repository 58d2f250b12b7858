"""A real kube-apiserver with etcd on loopback, without nodes and controllers, for integration tests.

    with running() as server:
        kubernetes.config.load_kube_config(str(server.kubeconfig))

Nothing acts on the objects: no garbage collection, no pods, no endpoints. A test plays those parts.
"""

from __future__ import annotations

import ctypes
import json
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.console import Problem, output
from e2e.cluster.tools import tool

START_S = 60.0  # seconds allowed from start to ready on a busy machine
_PR_SET_PDEATHSIG = 1


@dataclass
class ApiServer:
    """One etcd and one kube-apiserver that keep everything in `folder`; made by `running`."""

    folder: Path
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    _etcd_url: str = ""
    _etcd: subprocess.Popen[bytes] | None = None
    _server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, https on loopback."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate (PEM) the server's own is checked with."""
        return self.folder / "tls.crt"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator."""
        return self.folder / "kubeconfig"

    def start(self) -> None:
        """Start both programs and wait until the server is ready; Problem where one ends instead."""
        programs = {name: tool(name) for name in ("etcd", "kube-apiserver")}
        _certificate(self.folder)
        (self.folder / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n")
        client, peer, self.port = _free_ports(3)
        self._etcd_url = f"http://127.0.0.1:{client}"
        self._etcd = self._spawn("etcd", [programs["etcd"], *_etcd_flags(self.folder, client, peer)])
        self._write_kubeconfig()
        self.resume()

    def resume(self) -> None:
        """Start the server again, same address and data, after `interrupt`."""
        flags = _server_flags(self.folder, self._etcd_url, self.port)
        self._server = self._spawn("kube-apiserver", [tool("kube-apiserver"), *flags])
        self._await_ready()

    def interrupt(self) -> None:
        """End the server but not etcd: clients lose their connections, the data stays."""
        _end(self._server)
        self._server = None

    def stop(self) -> None:
        """End both programs; safe to call twice."""
        self.interrupt()
        _end(self._etcd)
        self._etcd = None

    def _spawn(self, name: str, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - only a prctl call
            )

    def _await_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        deadline = time.monotonic() + START_S
        while not (self._answers("/readyz", context) and self._answers("/api/v1/namespaces/default", context)):
            for name, process in (("etcd", self._etcd), ("kube-apiserver", self._server)):
                if process is None or process.poll() is not None:
                    raise Problem(f"{name} ended while starting: {self._last_line(name)}")
            if time.monotonic() > deadline:
                last = self._last_line("kube-apiserver")
                raise Problem(f"kube-apiserver was not ready within {START_S:.0f} s: {last}")
            time.sleep(0.05)

    def _answers(self, path: str, context: ssl.SSLContext) -> bool:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as response:  # noqa: S310
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_line(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def _write_kubeconfig(self) -> None:
        name = "integration"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config))


@contextmanager
def running(folder: Path | None = None) -> Iterator[ApiServer]:
    """A ready ApiServer, ended and (where no `folder` was given) removed at the end."""
    place = folder or Path(tempfile.mkdtemp(prefix="penstock-apiserver-"))
    server = ApiServer(place)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def _certificate(folder: Path) -> None:
    """One self-signed certificate serves TLS; its key also signs service account tokens."""
    if shutil.which("openssl") is None:
        raise Problem("openssl is not installed", "apt-get install openssl")
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    output([*request.split(), *names, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"])


def _etcd_flags(folder: Path, client: int, peer: int) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd'}",
        "--name=one",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=one=http://127.0.0.1:{peer}",
        # the data dies with the test session
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _server_flags(folder: Path, etcd_url: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--tls-cert-file={folder / 'tls.crt'}",
        f"--tls-private-key-file={folder / 'tls.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={folder / 'tls.key'}",
        f"--service-account-key-file={folder / 'tls.key'}",
        "--service-cluster-ip-range=10.0.0.0/16",
        # no controller makes service accounts here, and pods must be accepted without
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _free_ports(count: int) -> list[int]:
    """Distinct ports that were free on loopback a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _die_with_parent() -> Callable[[], None] | None:
    """What makes a child end with this process even if that is killed (Linux, main thread only)."""
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
