"""What ONNX Runtime computes on: what was asked for, or the load fails and says why.

By itself ONNX Runtime falls back to the CPU where a GPU cannot be used, and tells only its log: an answer would take
a hundred times as long, and nobody would know why.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from penstock_runtime.engine.compute import CPU, CUDA, Compute
from penstock_runtime.engine.errors import ModelLoadError

_PROVIDERS = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider"}
# What a GPU's driver brings along, then what ONNX Runtime needs of CUDA's libraries.
_LIBRARIES = ("libcuda.so.1", "libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, the provider that it computes on, and why it is not one that was asked for before that."""

    session: ort.InferenceSession
    provider: str
    fallback: str | None


def open_session(path: Path, options: ort.SessionOptions, compute: Compute) -> Opened:
    """Return a session on the first of the providers that can be used.

    Raises ModelLoadError if none can; what is wrong with the model is raised as ONNX Runtime does.
    """
    # What it would write to the standard error is in `reasons`, which is read.
    ort.set_default_logger_severity(4)
    reasons: list[str] = []
    for name in compute.providers:
        wanted = _PROVIDERS[name]
        if wanted not in ort.get_available_providers():
            reasons.append(f"{name} was asked for, and this ONNX Runtime is built without it")
            continue
        session = ort.InferenceSession(str(path), options, providers=[(wanted, _options(name, compute))])
        if session.get_providers()[0] == wanted:
            return Opened(session, name, "; ".join(reasons) or None)
        reasons.append(f"{name} was asked for, and cannot be used: {_why_not()}")
    raise ModelLoadError("; ".join(reasons))


def _options(name: str, compute: Compute) -> Mapping[str, Any]:
    if name != CUDA:
        return {}
    # Searching exhaustively would take seconds for each new shape.
    options = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    if compute.gpu_memory is not None:
        options["gpu_mem_limit"] = str(compute.gpu_memory)
    return options


def _why_not(libraries: Sequence[str] = _LIBRARIES) -> str:
    """Return why CUDA cannot be used: the first library that cannot be loaded says it best."""
    folder = Path(ort.__file__).parent / "capi"
    for name in libraries:
        own = folder / name
        try:
            ctypes.CDLL(str(own) if own.exists() else name, ctypes.RTLD_GLOBAL)
        except OSError as error:
            return str(error)
    return "ONNX Runtime sees no GPU that it supports"
