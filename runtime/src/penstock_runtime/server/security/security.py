"""What secures the ports of one process, from its options."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

from penstock_runtime.server.http import App
from penstock_runtime.server.security.guard import HEALTH, Guard, refusal
from penstock_runtime.server.security.identity import Identity
from penstock_runtime.server.security.options import SecurityOptions
from penstock_runtime.server.security.tokens import Tokens


class Security:
    """TLS and tokens as the options want them; where they want none, nothing stands between port and app.

    The data port over gRPC has what it has over HTTP.
    """

    def __init__(self, options: SecurityOptions) -> None:
        """Read all files; raises SettingsError."""
        self._ports = options.tls_ports
        self.identity = None if options.tls_files is None else Identity(*options.tls_files)
        self.tokens = None if options.token_file is None else Tokens(options.token_file)
        self.admin_tokens = None if options.admin_token_file is None else Tokens(options.admin_token_file)

    def tls(self, port: str) -> ssl.SSLContext | None:
        """Return what the port of that name speaks TLS with; None: it does not."""
        return self.identity.context if self.identity is not None and port in self._ports else None

    @property
    def grpc_identity(self) -> Identity | None:
        """What gRPC speaks TLS with; None: it does not."""
        return self.identity if "http" in self._ports else None

    def guard_data(self, app: App) -> App:
        """Return the data port's `app`, behind tokens if there are; probes need none."""
        return app if self.tokens is None else Guard(app, self.tokens, HEALTH)

    @property
    def allows(self) -> Callable[[Mapping[bytes, bytes]], bool] | None:
        """Whether a request with these headers has what the data port asks for; None: it asks for nothing."""
        tokens = self.tokens
        if tokens is None:
            return None
        return lambda headers: refusal(tokens, headers.get(b"authorization", b"")) is None

    def guard_admin(self, app: App, pages: tuple[str, ...] = ()) -> App:
        """Return the admin port's `app`, behind tokens if there are. `pages`: as Guard has them."""
        return app if self.admin_tokens is None else Guard(app, self.admin_tokens, pages=pages)

    def refresh(self) -> None:
        """Read again what has changed."""
        for part in (self.identity, self.tokens, self.admin_tokens):
            if part is not None:
                part.refresh()
