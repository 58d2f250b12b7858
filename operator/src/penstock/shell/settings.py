"""The admin's settings, from environment variables PENSTOCK_*. All mistakes are told at once."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from penstock.adapters.prometheus import Connection
from penstock.core.world import Settings as Rules

PREFIX = "PENSTOCK_"
_SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

T = TypeVar("T")


class InvalidSettings(Exception):  # noqa: N818
    """One or more variables cannot be used; one line each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator's process needs to know."""

    runtime_image: str
    """Image of the fetch container and of the agent."""
    namespaces: tuple[str, ...] = ()
    """Watched ones; empty for all."""
    prometheus_url: str = ""
    """Empty: the model pods are scraped directly."""
    prometheus_token_file: Path | None = None
    prometheus_username: str = ""
    prometheus_password_file: Path | None = None
    prometheus_ca_file: Path | None = None
    prometheus_matchers: Mapping[str, str] | None = None
    scrape_seconds: float = 15.0
    log_format: str = "json"
    log_level: str = "INFO"
    http_port: int = 8080
    lease_namespace: str = "penstock-system"
    lease_name: str = "penstock"
    identity: str = "operator"
    workers: int = 8
    resync_seconds: float = 300.0
    writes_per_second: float = 20.0

    @property
    def prometheus(self) -> Connection | None:
        """Where samples are read; None for the pods themselves."""
        if not self.prometheus_url:
            return None
        return Connection(
            self.prometheus_url,
            self.prometheus_token_file,
            self.prometheus_username,
            self.prometheus_password_file,
            self.prometheus_ca_file,
            self.prometheus_matchers,
        )

    @property
    def rules(self) -> Rules:
        """The part that decisions depend on."""
        return Rules(agent_image=self.runtime_image, scrape_seconds=self.scrape_seconds)


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of this environment. InvalidSettings names every variable that is wrong, and what it must be."""
    reader = _Reader(environ)
    get = reader.get
    found: dict[str, Any] = {
        "runtime_image": reader.require("RUNTIME_IMAGE", _image, ""),
        "namespaces": get("NAMESPACES", _namespaces, _namespaces("")),
        "prometheus_url": get("PROMETHEUS_URL", _url, ""),
        "prometheus_token_file": get("PROMETHEUS_TOKEN_FILE", _file, None),
        "prometheus_username": get("PROMETHEUS_USERNAME", str, ""),
        "prometheus_password_file": get("PROMETHEUS_PASSWORD_FILE", _file, None),
        "prometheus_ca_file": get("PROMETHEUS_CA_FILE", _file, None),
        "prometheus_matchers": get("PROMETHEUS_MATCHERS", _matchers, None),
        "scrape_seconds": get("SCRAPE_INTERVAL", _between(1, 600), 15.0),
        "log_format": get("LOG_FORMAT", _one_of("json", "text"), "json"),
        "log_level": get("LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
        "http_port": int(get("HTTP_PORT", _between(0, 65535), 8080.0)),
        "lease_namespace": get("LEASE_NAMESPACE", _namespace, "") or _own_namespace(),
        "lease_name": get("LEASE_NAME", _namespace, "penstock"),
        "identity": get("IDENTITY", str, "") or socket.gethostname(),
        "workers": int(get("WORKERS", _between(1, 256), 8.0)),
        "resync_seconds": get("RESYNC_SECONDS", _between(10, 86400), 300.0),
        "writes_per_second": get("WRITES_PER_SECOND", _between(0.1, 1000), 20.0),
    }
    reader.check()
    return Settings(**found)


class _Reader:
    """Reads variables one by one and keeps what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._wrong: list[str] = []

    def get(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """The variable's value, or the default where it is unset or empty."""
        return self.require(name, parse, default) if self._text(name) else default

    def require(self, name: str, parse: Callable[[str], T], instead: T) -> T:
        """The variable's value; `instead` only lets the reading go on where it cannot be used."""
        text = self._text(name)
        try:
            return parse(text)
        except ValueError as exc:
            self._wrong.append(f"{PREFIX}{name}={text!r}: {exc}")
            return instead

    def _text(self, name: str) -> str:
        return self._environ.get(PREFIX + name, "").strip()

    def check(self) -> None:
        """Raise what was found wrong."""
        if self._wrong:
            raise InvalidSettings("\n".join(["these settings cannot be used:", *self._wrong]))


def _image(text: str) -> str:
    if not text or any(c.isspace() for c in text):
        raise ValueError("set it to the image of the model runtime, such as penstock.local/runtime:dev")
    return text


def _namespaces(text: str) -> tuple[str, ...]:
    return tuple(_namespace(part.strip()) for part in text.split(",") if part.strip())


def _namespace(text: str) -> str:
    if len(text) > 63 or not _DNS_LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a namespace (lower-case letters, digits and -, at most 63)")
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as http://prometheus.monitoring.svc:9090")
    if parts.username or parts.password:
        raise ValueError("must hold no credentials: use PENSTOCK_PROMETHEUS_USERNAME and _PASSWORD_FILE")
    if parts.query or parts.fragment:
        raise ValueError("must end with the path, without ? and #")
    return text


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _matchers(text: str) -> Mapping[str, str]:
    """`cluster=eu1,tenant=a`"""
    out = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
            raise ValueError("must be labels such as cluster=eu1,tenant=a")
        out[name] = value.strip('"')
    return out


def _between(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return value

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for word in words:
            if text.lower() == word.lower():
                return word
        raise ValueError(f"must be one of {', '.join(words)}")

    return parse


def _own_namespace() -> str:
    try:
        return _SERVICE_ACCOUNT_NAMESPACE.read_text().strip() or "penstock-system"
    except OSError:
        return "penstock-system"
