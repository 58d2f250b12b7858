"""Listening sockets, bound before a model is loaded so that a taken port is known at once."""

from __future__ import annotations

import errno
import socket

_EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - a server's port is for all, policy is the network's


class ListenError(Exception):
    """The address cannot be listened on."""


def bind(host: str | None, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to `port` of `host` (None: of every address); raises ListenError.

    `shared`: other sockets may be bound to the same port, among which the kernel spreads the connections.
    """
    if host is None:
        try:
            return _bind_family(socket.AF_INET6, "::", port, shared)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ListenError(_taken(port)) from None
            host = _EVERY_IPV4
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _bind_family(family, host, port, shared)
    except OSError as error:
        reason = (
            _taken(port)
            if error.errno == errno.EADDRINUSE
            else f"cannot listen on {host} port {port}: {error.strerror}"
        )
        raise ListenError(reason) from None


def _bind_family(family: socket.AddressFamily, host: str, port: int, shared: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _taken(port: int) -> str:
    return f"port {port} is taken by another process; choose another one"
