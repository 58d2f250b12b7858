"""The command line's part about the access log and traces."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_PREFIX = "OTEL_EXPORTER_OTLP_"


@dataclass(frozen=True, slots=True)
class ObservingOptions:
    """What is told of requests.

    `access_log`: share of inference requests that are logged, 0 to 1; 0: none. `traces_url`: where spans are sent,
    by OTLP over HTTP; None: there are none. `service`: the name they go by, unless OTEL_SERVICE_NAME says another.
    """

    access_log: float = 0.0
    traces_url: str | None = None
    service: str = "penstock-runtime"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("observing")
    group.add_argument("--access-log", type=float, default=0.0, metavar="SHARE",
                       help="log this share of requests to infer, such as 0.01, and failures (default: 0)")  # fmt: skip
    group.add_argument("--otlp-endpoint", metavar="URL",
                       help="send traces to this collector by OTLP/HTTP, such as http://collector:4318 "
                       "(default: $OTEL_EXPORTER_OTLP_ENDPOINT; absent: no traces)")  # fmt: skip


def read_options(args: Namespace, env: Mapping[str, str]) -> ObservingOptions:
    """Return what `args` and OpenTelemetry's own variables in `env` say; raises ValueError."""
    if not 0.0 <= args.access_log <= 1.0:
        raise ValueError(f"--access-log: {args.access_log:g} is no share; write a number from 0 to 1")
    return ObservingOptions(args.access_log, _traces_url(args.otlp_endpoint, env))


def _traces_url(endpoint: str | None, env: Mapping[str, str]) -> str | None:
    if endpoint is None and (env.get("OTEL_SDK_DISABLED") == "true" or env.get("OTEL_TRACES_EXPORTER") == "none"):
        return None
    base = endpoint or env.get(f"{_PREFIX}ENDPOINT")
    url = f"{base.rstrip('/')}/v1/traces" if base else None
    if endpoint is None:
        url = env.get(f"{_PREFIX}TRACES_ENDPOINT") or url
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{base or url}' is no address of a collector; write it like http://collector:4318")
    protocol = env.get(f"{_PREFIX}TRACES_PROTOCOL") or env.get(f"{_PREFIX}PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise ValueError(f"OTLP by '{protocol}' is not spoken, only http/protobuf (port 4318 of most collectors)")
    return url
