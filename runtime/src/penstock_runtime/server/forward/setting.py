"""What a server is told about forwarding, as JSON: parsed and checked, with messages for people."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from penstock_runtime.server.settings import SettingsError

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_EXAMPLE = "a URL such as http://iris-canary.my-namespace.svc:80"
_GRPC_EXAMPLE = "a host and a port such as iris-canary.my-namespace.svc:9000"
MAX_SALT = 256


@dataclass(frozen=True, slots=True)
class Address:
    """Where another server listens. `host`: a name, or an address without brackets."""

    host: str
    port: int

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address, which needs no resolving."""
        return _is_ip(self.host)

    @property
    def authority(self) -> str:
        """Host and port as a URL and the header Host have them."""
        return self._bracketed if self.port == 80 else self.endpoint

    @property
    def endpoint(self) -> str:
        """Host and port, as gRPC clients have them."""
        return f"{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        """Return the URL."""
        return f"http://{self.authority}"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Which requests go to `to`: a `share` of all, 0 to 1.

    `to_grpc`: where the same server speaks gRPC; None: requests over gRPC stay, and are not among all.
    `header`: the lower-case name of the header whose value decides (None: chance does), so that all requests
    with one value go the same way; `salt`: another one is another choice of values.
    """

    to: Address
    share: float
    header: str | None = None
    salt: str = ""
    to_grpc: Address | None = None

    def describe(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        by: object = "random"
        if self.header is not None:
            by = {"header": self.header, **({"salt": self.salt} if self.salt else {})}
        grpc = {} if self.to_grpc is None else {"to_grpc": self.to_grpc.endpoint}
        return {"to": str(self.to), **grpc, "share": self.share, "by": by}


def parse_forwarding(spec: Mapping[str, Any]) -> Forwarding | None:
    """Return what `spec` says; None if it is empty: forward nothing. Raises SettingsError."""
    if not spec:
        return None
    check_keys(spec, ("to", "to_grpc", "share", "by"), "the setting")
    header, salt = _parse_by(spec.get("by", "random"))
    to_grpc = parse_grpc_address(spec["to_grpc"], "to_grpc") if "to_grpc" in spec else None
    return Forwarding(parse_address(spec.get("to")), parse_share(spec.get("share"), "share"), header, salt, to_grpc)


def _parse_by(by: object) -> tuple[str | None, str]:
    if by == "random":
        return None, ""
    if not isinstance(by, Mapping):
        raise SettingsError('\'by\' must be "random" or an object such as {"header": "x-user-id"}')
    check_keys(by, ("header", "salt"), "'by'")
    header, salt = by.get("header"), by.get("salt", "")
    if not isinstance(header, str) or _TOKEN.fullmatch(header) is None:
        raise SettingsError("'by.header' must be the name of a header, such as x-user-id")
    if not isinstance(salt, str) or len(salt) > MAX_SALT:
        raise SettingsError(f"'by.salt' must be a text of at most {MAX_SALT} characters")
    return header.lower(), salt


def parse_address(value: object, name: str = "to") -> Address:
    """Return the address in the URL `value`; `name` is the key it stands under. Raises SettingsError."""
    if not isinstance(value, str):
        raise SettingsError(f"'{name}' must be {_EXAMPLE}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"'{name}' is no URL ({error}); give {_EXAMPLE}") from None
    if parts.scheme == "https":
        raise SettingsError(f"'{name}': https is not supported; give an http address within the cluster")
    host = parts.hostname or ""
    if parts.scheme != "http" or not (_is_ip(host) or _HOST.fullmatch(host)) or port == 0:
        raise SettingsError(f"'{name}' must be {_EXAMPLE}")
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise SettingsError(f"'{name}' must have a host and a port and nothing else: {_EXAMPLE}")
    return Address(host, port or 80)


def parse_grpc_address(value: object, name: str) -> Address:
    """Return the address in `value`, host:port; `name` is the key it stands under. Raises SettingsError."""
    try:
        parts = urlsplit(f"//{value}" if isinstance(value, str) else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not port or not (_is_ip(host) or _HOST.fullmatch(host)) or value != Address(host, port).endpoint:
        raise SettingsError(f"'{name}' must be {_GRPC_EXAMPLE}")
    return Address(host, port)


def parse_share(value: object, name: str) -> float:
    """Return a number from 0 to 1; `name` is the key it stands under. Raises SettingsError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(f"'{name}' must be a number from 0 to 1; 5 % is 0.05")
    if not 0 <= value <= 1:
        raise SettingsError(f"'{name}' is {value}, which is not from 0 to 1; 5 % is 0.05")
    return float(value)


def check_keys(spec: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise SettingsError if `spec` has others than the `known` keys: a misspelt one must not pass."""
    unknown = [str(key)[:80] for key in spec if key not in known]
    if unknown:
        raise SettingsError(f"{where} has the unknown key '{unknown[0]}'; there are {', '.join(known)}")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host
