"""What an agent is told: command line and environment, checked at start."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_runtime.server.agent.paths import PROTOCOLS, ProtocolName
from penstock_runtime.server.forward.setting import Address, parse_address
from penstock_runtime.server.security import options as security
from penstock_runtime.server.settings import (
    Feedback,
    Named,
    Serving,
    SettingsError,
    add_process_arguments,
    read_feedback,
    read_json_object,
    read_serving,
)

_MODEL_NAME = re.compile(r"[^/\s]{1,253}")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything an agent is told. `protocol` None: whichever of them the upstream speaks; ports as in Settings."""

    upstream: Address
    protocol: ProtocolName | None
    model_name: str
    revision: str
    host: str | None
    http_port: int
    admin_port: int
    metrics_port: int
    config_dir: Path
    feedback_key_dir: Path
    drain_seconds: float
    shutdown_seconds: float
    termination_log: Path | None
    serving: Serving
    feedback: Feedback
    security: security.SecurityOptions


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `penstock-runtime agent`."""
    parser.add_argument("--upstream", required=True, metavar="URL",
                        help="the server to stand in front of, such as http://127.0.0.1:8501")  # fmt: skip
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "auto"), default="auto",
                        help="what it speaks: Open Inference Protocol or TensorFlow Serving's REST "
                             "(default: auto, found out by asking)")  # fmt: skip
    parser.add_argument(
        "--model-name", help="the model that is measured, by its name in URLs (default: $PENSTOCK_MODEL)"
    )
    add_process_arguments(parser)


def read_settings(args: Namespace, env: Mapping[str, str]) -> AgentSettings:
    """Return the settings of `args` and `env`; raises SettingsError naming what is wrong."""
    name = args.model_name or env.get("PENSTOCK_MODEL") or ""
    if _MODEL_NAME.fullmatch(name) is None:
        raise SettingsError("model-name: none is given, or none that can be in a URL; name the model as in the "
                            "upstream's URLs, by --model-name or PENSTOCK_MODEL")  # fmt: skip
    with Named("security"):
        secured = security.read_options(args)
    return AgentSettings(
        upstream=parse_address(args.upstream, "upstream"),
        protocol=None if args.protocol == "auto" else args.protocol,
        model_name=name,
        revision=env.get("PENSTOCK_REVISION") or "none",
        host=args.host,
        http_port=args.http_port,
        admin_port=args.admin_port,
        metrics_port=args.metrics_port,
        config_dir=args.config_dir,
        feedback_key_dir=args.feedback_key_dir,
        drain_seconds=args.drain_seconds,
        shutdown_seconds=args.shutdown_seconds,
        termination_log=args.termination_log,
        serving=read_serving(read_json_object(env, "PENSTOCK_SERVING")),
        feedback=read_feedback(read_json_object(env, "PENSTOCK_FEEDBACK")),
        security=secured,
    )
