"""Secrets as the kubelet mounts them: certificates and tokens that are exchanged at once."""

from __future__ import annotations

import http.client
import itertools
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

from tests.unit.runtime.process import DEADLINE


class SecretMount:
    """A folder whose files are links through ..data, which is swapped to a new folder by a rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        folder.mkdir()

    def write(self, **files: bytes) -> None:
        """Exchange all files at once; underscores in names are dots."""
        fresh = self.folder / f"..{next(self._numbers)}"
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name.replace("_", ".")).write_bytes(content)
            link = self.folder / name.replace("_", ".")
            if not link.is_symlink():
                link.symlink_to(Path("..data") / link.name)
        swapped = self.folder / "..data_tmp"
        swapped.symlink_to(fresh.name)
        swapped.replace(self.folder / "..data")


def make_pair(folder: Path, name: str, *, password: str = "") -> tuple[bytes, bytes]:
    """Return a new self-signed certificate for 127.0.0.1 and localhost, and its key."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    guarded = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *guarded, "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=DEADLINE, env={**os.environ, "RANDFILE": str(folder / "rnd")},
    )  # fmt: skip
    return certificate.read_bytes(), key.read_bytes()


def trusting(*certificates: bytes) -> ssl.SSLContext:
    """Return a client's context that trusts these and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in certificates:
        context.load_verify_locations(cadata=certificate.decode())
    return context


def connect(port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> http.client.HTTPSConnection:
    """Return a connection over TLS; a name as `host` is sent with the handshake, an address is not."""
    return http.client.HTTPSConnection(host, port, timeout=DEADLINE, context=context)


def shown_name(connection: http.client.HTTPSConnection) -> str:
    """Return the common name of the certificate that a connection, made here if need be, was shown."""
    if connection.sock is None:
        connection.connect()
    subject: Any = connection.sock.getpeercert()
    return str(dict(item[0] for item in subject["subject"])["commonName"])
