"""The certificate that the server shows, exchanged while it serves."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from penstock_runtime.log import event
from penstock_runtime.server.settings import SettingsError

logger = logging.getLogger(__name__)


class Identity:
    """A certificate chain and its private key, as files that may change at any time.

    `context` is what a port speaks TLS with. It hands every handshake to the pair read last, so connections that
    stand are not touched by an exchange, and no port has to be opened anew. `pair` holds the files' contents, for a
    protocol that wants them so (gRPC's dynamic_ssl_server_credentials).
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both files; raises SettingsError if they are no pair."""
        self._files = (certificate, key)
        self._complaint = ""
        try:
            self.pair = self._seen = self._read()
            self._newest = self._load()
        except (OSError, ValueError) as error:
            raise SettingsError(f"TLS: {self._describe(error)}") from None
        self.context = _new_context()
        # Called for every handshake, with or without a server name.
        self.context.sni_callback = self._choose

    def refresh(self) -> bool:
        """Take a new pair if there is one; return whether one was taken. A bad one is logged, the old one stays."""
        try:
            pair = self._read()
            if pair == self._seen:
                return False
            self._seen = pair
            self._newest = self._load()
        except (OSError, ValueError) as error:
            self._complain(error)
            return False
        self.pair, self._complaint = pair, ""
        event(logger, "TLS certificate changed", file=str(self._files[0]))
        return True

    def _read(self) -> tuple[bytes, bytes]:
        certificate, key = self._files
        return certificate.read_bytes(), key.read_bytes()

    def _load(self) -> ssl.SSLContext:
        context = _new_context()
        context.load_cert_chain(*self._files, password=_refuse_password)
        return context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _complain(self, error: Exception) -> None:
        text = self._describe(error)
        if text != self._complaint:
            self._complaint = text
            event(logger, "the TLS files changed and are no pair; the old ones stay", level=logging.ERROR, error=text)

    def _describe(self, error: Exception) -> str:
        certificate, key = self._files
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or "no PEM").lower().replace("_", " ")
            return f"{certificate} and {key} are not a PEM certificate and its private key: {reason}"
        if isinstance(error, OSError):
            return f"cannot read {error.filename or f'{certificate} and {key}'}: {error.strerror}"
        return f"{key}: {error}"


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _refuse_password() -> str:
    # Without this OpenSSL would ask for it on the terminal, and wait.
    raise ValueError("the private key is encrypted; give one that is not")
