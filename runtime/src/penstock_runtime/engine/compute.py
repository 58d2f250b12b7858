"""What models are computed on, as it was asked for."""

from __future__ import annotations

from dataclasses import dataclass

CPU, CUDA = "cpu", "cuda"
NAMES = (CPU, CUDA)


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute on the first of `providers` that can be used. `gpu_memory`: most bytes to take of a GPU, None: all."""

    providers: tuple[str, ...] = (CPU,)
    gpu_memory: int | None = None


ON_CPU = Compute()
