"""What a serving process is told: command line and environment, checked at start."""

from __future__ import annotations

import json
import os
import re
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

from penstock_runtime.engine.compute import CPU, NAMES, ON_CPU, Compute
from penstock_runtime.engine.locate import VersionPolicy
from penstock_runtime.server.observing import options as observing
from penstock_runtime.server.security import options as security
from penstock_runtime.server.units import parse_duration, parse_size
from penstock_runtime.server.workers.link import Inherited

# As in the CRD.
MAX_BATCH_ROWS = 4096

Decision = Literal["argmax", "threshold", "tolerance"]
_Number = TypeVar("_Number", int, float)


class SettingsError(Exception):
    """A setting is wrong; the message names it and says what is expected."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Limits of serving (spec.serving). `threads` None = by the CPU quota; `timeout` in seconds.

    `max_batch_rows`: most rows that requests waiting for the model are run with together; 1 = each alone.
    `custom_domains`: those of operators beyond ONNX Runtime's own that a model may have.
    `compute`: what models are computed on. `cpu_share`: of the CPUs that the server may use, what this process may.
    """

    threads: int | None = None
    max_body_bytes: int = 64 * 2**20
    max_queue: int = 256
    timeout: float = 60.0
    max_batch_rows: int = 32
    custom_domains: frozenset[str] = frozenset()
    compute: Compute = ON_CPU
    cpu_share: float = 1.0

    def divided(self, workers: int) -> Serving:
        """Return the limits of one of `workers` processes that share the CPUs and the queue."""
        return replace(self, max_queue=-(-self.max_queue // workers), cpu_share=1 / workers)


@dataclass(frozen=True, slots=True)
class Feedback:
    """How predictions are judged (spec.feedback). `decision` None = by the output's type.

    `threshold` is the least probability of class 1; `tolerance` the largest absolute error that still counts
    as correct; `window` the seconds in which feedback for a prediction is taken.
    """

    output: str | None = None
    decision: Decision | None = None
    threshold: float = 0.5
    tolerance: float | None = None
    window: float = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What every process with these ports is told, whoever answers behind them.

    Ports of 0 are chosen by the system and logged; None: not served. `worker`: the sockets of this process if it is
    one of several `workers`.
    """

    workers: int
    worker: Inherited | None
    revision: str
    host: str | None
    http_port: int
    grpc_port: int | None
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

    @classmethod
    def read(cls, args: Namespace, env: Mapping[str, str], **own: Any) -> Self:
        """Return the settings of `args` and `env`, with what only this kind of process is told in `own`.

        Raises SettingsError naming what is wrong.
        """
        serving = read_serving(read_json_object(env, "PENSTOCK_SERVING"))
        with Named("workers"):
            workers = _at_least(1, args.workers)
        with Named("security"):
            secured = security.read_options(args)
        return cls(
            workers=workers,
            worker=Inherited(*map(int, args.worker.split(","))) if args.worker else None,
            revision=env.get("PENSTOCK_REVISION") or "none",
            host=args.host,
            http_port=args.http_port,
            grpc_port=None if args.grpc_port < 0 else args.grpc_port,
            admin_port=args.admin_port,
            metrics_port=args.metrics_port,
            config_dir=args.config_dir,
            feedback_key_dir=args.feedback_key_dir,
            drain_seconds=args.drain_seconds,
            shutdown_seconds=args.shutdown_seconds,
            termination_log=args.termination_log,
            serving=serving.divided(workers),
            feedback=read_feedback(read_json_object(env, "PENSTOCK_FEEDBACK")),
            security=secured,
            **own,
        )


@dataclass(frozen=True, slots=True)
class Settings(ProcessSettings):
    """Everything a serving process is told.

    `model_name` None: `model_path` is a repository, each of whose folders is a model. `model_control`: whether
    models may be loaded and unloaded by the admin port.
    """

    model_path: Path
    model_name: str | None
    version_policy: VersionPolicy
    model_control: bool
    observing: observing.ObservingOptions


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `penstock-runtime serve`."""
    parser.add_argument("model", type=Path, nargs="?",
                        help="an .onnx file, a folder with one, or with numbered folders")  # fmt: skip
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model-path", type=Path, metavar="MODEL", help="the same as an option")
    where.add_argument("--model-repository", type=Path, metavar="FOLDER",
                       help="a folder whose every folder is a model by its name")  # fmt: skip
    parser.add_argument("--versions", default="latest", metavar="POLICY",
                        help="numbered folders to serve: latest (default), all, or numbers such as 3,5")  # fmt: skip
    parser.add_argument("--model-control", choices=("none", "explicit"), default="none",
                        help="explicit: models can be loaded and unloaded by requests to the admin port")  # fmt: skip
    parser.add_argument("--model-name", help="name in URLs (default: $PENSTOCK_MODEL, else the file's or folder's)")
    add_process_arguments(parser)
    observing.add_arguments(parser)
    add_domains_argument(parser)
    parser.add_argument("--providers", metavar="NAME,...",
                        help="what to compute on: cpu, cuda, or cuda,cpu to make do with the CPU where there is no GPU "
                             "(default: $PENSTOCK_PROVIDERS, else cpu)")  # fmt: skip
    parser.add_argument("--gpu-memory", metavar="SIZE",
                        help="most of a GPU's memory that a model may take, such as 8Gi "
                             "(default: $PENSTOCK_GPU_MEMORY)")  # fmt: skip


def add_process_arguments(parser: ArgumentParser) -> None:
    """Declare the options of every process with these ports, whoever answers behind them."""
    parser.add_argument("--workers", type=int, default=1, metavar="N",
                        help="processes that share the ports, for models too small for threads")  # fmt: skip
    parser.add_argument("--worker", help=SUPPRESS)  # what a process is told that is one of them
    parser.add_argument("--host", help="address to listen on (default: every address)")
    parser.add_argument("--http-port", type=int, default=8080, help="inference and health")
    parser.add_argument(
        "--grpc-port",
        type=int,
        default=9000,
        help="inference and health over gRPC; -1: none, as with tokens or TLS on http, which it lacks",
    )
    parser.add_argument("--admin-port", type=int, default=9091, help="feedback")
    parser.add_argument("--metrics-port", type=int, default=9090, help="GET /metrics")
    parser.add_argument("--config-dir", type=Path, default=Path("/etc/penstock/revision"),
                        help="folder with the files 'cohort' (the rollout in flight), 'feedback', 'forward.json', "
                             "'shadow.json'; read anew each second")  # fmt: skip
    parser.add_argument("--feedback-key-dir", type=Path, default=Path("/etc/penstock/feedback-key"),
                        help="folder with the files 'current' and 'previous': ids' keys")  # fmt: skip
    parser.add_argument("--drain-seconds", type=float, default=5.0,
                        help="after SIGTERM: seconds to go on accepting while not ready")  # fmt: skip
    parser.add_argument("--shutdown-seconds", type=float, default=20.0,
                        help="after that: seconds to finish what is in flight")  # fmt: skip
    parser.add_argument("--termination-log", type=Path, help="file for the reason of a failed start")
    security.add_arguments(parser)


def add_domains_argument(parser: ArgumentParser) -> None:
    """Declare the option that `inspect` shares."""
    parser.add_argument("--allow-custom-domains", metavar="DOMAIN,...",
                        help="domains of operators beyond ONNX Runtime's own that the model may have "
                             "(default: $PENSTOCK_ALLOW_CUSTOM_DOMAINS)")  # fmt: skip


def read_domains(args: Namespace, env: Mapping[str, str]) -> frozenset[str]:
    """Return the custom domains that are allowed."""
    text = args.allow_custom_domains or env.get("PENSTOCK_ALLOW_CUSTOM_DOMAINS") or ""
    return frozenset(text.replace(",", " ").split())


def read_settings(args: Namespace, env: Mapping[str, str]) -> Settings:
    """Return the settings of `args` and `env`; raises SettingsError naming what is wrong."""
    path = _model_path(args)
    name = None
    if args.model_repository is None:
        name = args.model_name or env.get("PENSTOCK_MODEL") or default_name(path)
    with Named("observing"):
        observed = observing.read_options(args, env)
    settings = Settings.read(
        args,
        env,
        model_path=path,
        model_name=name,
        version_policy=read_versions(args.versions),
        model_control=args.model_control == "explicit",
        observing=observed,
    )
    serving = replace(settings.serving, custom_domains=read_domains(args, env), compute=read_compute(args, env))
    return replace(settings, serving=serving)


def read_compute(args: Namespace, env: Mapping[str, str]) -> Compute:
    """Return what to compute on; raises SettingsError."""
    names = tuple((args.providers or env.get("PENSTOCK_PROVIDERS") or CPU).replace(",", " ").split())
    if not names or any(name not in NAMES for name in names) or len(set(names)) < len(names):
        raise SettingsError(f"providers: '{' '.join(names)}' is not one or several of {', '.join(NAMES)}")
    with Named("gpu-memory"):
        memory = args.gpu_memory or env.get("PENSTOCK_GPU_MEMORY")
        return Compute(names, _at_least(1, parse_size(memory)) if memory else None)


def default_name(path: Path) -> str:
    """Return what a model is called if nobody says: by its folder, or by its file if that is not model.onnx.

    Folders of versions give no name. What cannot stand in a URL as it is becomes "-".
    """
    # Not where links lead: that can be the kubelet's ..data, or a store's hash.
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
    names = [folder.name for folder in absolute.parents]
    if absolute.name != "model.onnx":
        names.insert(0, absolute.stem if absolute.suffix == ".onnx" else absolute.name)
    own = next((name for name in names if name and not name.isdecimal()), "model")
    return re.sub(r"[^A-Za-z0-9._~-]+", "-", own)


def _model_path(args: Namespace) -> Path:
    option: Path | None = args.model_path or args.model_repository
    if args.model is not None and option not in (None, args.model):
        raise SettingsError(f"model: both {args.model} and {option} are given; give one of them")
    path: Path | None = option or args.model
    if path is None:
        raise SettingsError("model: none is given; name an .onnx file, or a folder with one")
    return path


def read_versions(text: str) -> VersionPolicy:
    """Return the policy that `--versions` names; raises SettingsError."""
    if text in ("latest", "all"):
        return VersionPolicy(1 if text == "latest" else None)
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise SettingsError(f"versions: '{text}' is none of latest, all, or numbers such as 3,5")
    return VersionPolicy(None, frozenset(map(int, numbers)))


def read_serving(spec: Mapping[str, Any]) -> Serving:
    """Return spec.serving with defaults; unknown fields are left to versions that know them.

    Raises SettingsError.
    """
    default = Serving()
    with Named("serving"):
        threads = spec.get("threads", "auto")
        return Serving(
            threads=None if threads in (None, "auto") else _at_least(1, int(threads)),
            max_body_bytes=_at_least(1, parse_size(spec.get("maxBodyBytes", default.max_body_bytes))),
            max_queue=_at_least(0, int(spec.get("maxQueue", default.max_queue))),
            timeout=_at_least(0.001, parse_duration(spec.get("timeout", default.timeout))),
            max_batch_rows=_max_batch_rows(spec.get("batching"), default.max_batch_rows),
        )


def _max_batch_rows(batching: object, default: int) -> int:
    if batching is None:
        return default
    if not isinstance(batching, Mapping):
        raise ValueError("batching must be an object such as {maxSize: 32}")
    size = _at_least(1, int(batching.get("maxSize", default)))
    if size > MAX_BATCH_ROWS:
        raise ValueError(f"batching.maxSize {size} is more than {MAX_BATCH_ROWS}")
    return size


def read_feedback(spec: Mapping[str, Any]) -> Feedback:
    """Return spec.feedback with defaults; a threshold or tolerance alone implies the decision.

    Raises SettingsError.
    """
    default = Feedback()
    with Named("feedback"):
        decision = spec.get("decision")
        if decision is None:
            decision = next((key for key in ("threshold", "tolerance") if spec.get(key) is not None), None)
        if decision not in (None, "argmax", "threshold", "tolerance"):
            raise ValueError(f"decision '{decision}' is not one of argmax, threshold, tolerance")
        tolerance = spec.get("tolerance")
        threshold = spec.get("threshold")
        return Feedback(
            output=spec.get("output"),
            decision=cast("Decision | None", decision),
            threshold=default.threshold if threshold is None else float(threshold),
            tolerance=None if tolerance is None else _at_least(0.0, float(tolerance)),
            window=_at_least(1.0, parse_duration(spec.get("window") or default.window)),
        )


class Named:
    """Turns ValueError and TypeError in its block into a SettingsError that names the setting."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, TypeError)):
            raise SettingsError(f"{self._name}: {error}") from None


def read_json_object(env: Mapping[str, str], name: str) -> Mapping[str, Any]:
    """Return the JSON object in the variable `name`, an empty one if it is not set; raises SettingsError."""
    text = env.get(name) or "{}"
    with Named(name):
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("must be a JSON object")
    return value


def _at_least(least: _Number, value: _Number) -> _Number:
    if value < least:
        raise ValueError(f"{value} is less than {least}")
    return value
