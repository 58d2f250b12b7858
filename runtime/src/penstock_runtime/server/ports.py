"""The ports of HTTP: bound here, or by the supervisor of several workers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from penstock_runtime.server.http import App
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.settings import ProcessSettings
from penstock_runtime.server.sockets import bind

if TYPE_CHECKING:
    from penstock_runtime.server.direct import Direct


def open_ports(
    settings: ProcessSettings, security: Security, data: App, admin: App, metrics: App, direct: Direct | None = None
) -> list[Listener]:
    """Return the listeners of the data, the admin and the metrics port; raises ListenError.

    `direct`: the data port's short way for requests that need no ASGI.
    """
    ports = settings.worker or (settings.http_port, settings.admin_port, settings.metrics_port)
    listeners: list[Listener] = []
    try:
        for app, name, port, short in (
            (data, "http", ports[0], direct),
            (admin, "admin", ports[1], None),
            (metrics, "metrics", ports[2], None),
        ):
            bound = socket.socket(fileno=port) if settings.worker else bind(settings.host, port)
            # The supervisor asks its workers by loopback, and speaks TLS for them.
            tls = security.tls(name) if name == "http" or not settings.worker else None
            listeners.append(Listener(app, bound, short, tls))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners
