"""What an agent is told: command line and environment, checked at start."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace

from penstock_runtime.server.agent.paths import PROTOCOLS, ProtocolName
from penstock_runtime.server.forward.setting import Address, parse_address, parse_grpc_address
from penstock_runtime.server.settings import ProcessSettings, SettingsError, add_process_arguments

_MODEL_NAME = re.compile(r"[^/\s]{1,253}")


@dataclass(frozen=True, slots=True)
class AgentSettings(ProcessSettings):
    """Everything an agent is told.

    `upstream_grpc`: where the same server speaks gRPC, None if gRPC does not pass; `protocol` None: whichever of them
    the upstream speaks.
    """

    upstream: Address
    upstream_grpc: Address | None
    protocol: ProtocolName | None
    model_name: str


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `penstock-runtime agent`."""
    parser.add_argument("--upstream", required=True, metavar="URL",
                        help="the server to stand in front of, such as http://127.0.0.1:8501")  # fmt: skip
    parser.add_argument("--upstream-grpc", metavar="HOST:PORT",
                        help="where it speaks gRPC, so that calls to --grpc-port pass (default: none do)")  # fmt: skip
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "auto"), default="auto",
                        help="what it speaks: Open Inference Protocol or TensorFlow Serving's "
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
    grpc = args.upstream_grpc
    settings = AgentSettings.read(
        args,
        env,
        upstream=parse_address(args.upstream, "upstream"),
        upstream_grpc=None if grpc is None else parse_grpc_address(grpc, "upstream-grpc"),
        protocol=None if args.protocol == "auto" else args.protocol,
        model_name=name,
    )
    # There is nothing to pass calls on to.
    return replace(settings, grpc_port=None) if settings.upstream_grpc is None else settings
