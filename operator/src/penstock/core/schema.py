"""Can clients of one model use another? Compares the Open Inference Protocol metadata of two revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Compatibility(StrEnum):
    """What a change of schema means for clients of the old one."""

    EQUAL = "Equal"
    EXTENDED = "Extended"
    BREAKING = "Breaking"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. `shape` holds -1 for a dimension of any size."""

    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.datatype}[{','.join(str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Schema:
    """The inputs and outputs of a model, by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Difference:
    """The verdict and each difference as a phrase for people."""

    compatibility: Compatibility
    phrases: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.phrases)


def parse(metadata: Mapping[str, Any]) -> Schema:
    """A V2 model metadata answer; ValueError where it is not one."""

    def tensors(key: str) -> dict[str, Tensor]:
        try:
            return {
                str(t["name"]): Tensor(str(t["datatype"]), tuple(int(d) for d in t["shape"]))
                for t in metadata.get(key, ())
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"model metadata has unusable {key}: {error!r}") from error

    return Schema(tensors("inputs"), tensors("outputs"))


def compare(old: Schema, new: Schema) -> Difference:
    """Breaking when a request that the old model took, or an answer that clients read, would no longer work."""
    breaking: list[str] = []
    extended: list[str] = []
    for name, tensor in old.inputs.items():
        if name not in new.inputs:
            breaking.append(f"input {name} ({tensor}) is gone")
        else:
            _compare_tensor("input", name, tensor, new.inputs[name], breaking, extended)
    breaking += [
        f"input {n} ({t}) is new and clients do not send it" for n, t in new.inputs.items() if n not in old.inputs
    ]
    for name, tensor in old.outputs.items():
        if name not in new.outputs:
            breaking.append(f"output {name} ({tensor}) is gone")
        else:
            _compare_tensor("output", name, tensor, new.outputs[name], breaking, extended)
    extended += [f"output {n} ({t}) is new" for n, t in new.outputs.items() if n not in old.outputs]
    if breaking:
        return Difference(Compatibility.BREAKING, tuple(breaking))
    return Difference(Compatibility.EXTENDED if extended else Compatibility.EQUAL, tuple(extended))


def _compare_tensor(side: str, name: str, old: Tensor, new: Tensor, breaking: list[str], extended: list[str]) -> None:
    if old == new:
        return
    phrase = f"{side} {name} changes from {old} to {new}"
    if old.datatype != new.datatype or not _shape_accepts(side, old.shape, new.shape):
        breaking.append(phrase)
    else:
        extended.append(phrase)


def _shape_accepts(side: str, old: Sequence[int], new: Sequence[int]) -> bool:
    """An input may widen (3 -> -1), an output may narrow (-1 -> 3); never the other way."""
    if len(old) != len(new):
        return False
    wide, narrow = (new, old) if side == "input" else (old, new)
    return all(w in (-1, n) for w, n in zip(wide, narrow, strict=True))
