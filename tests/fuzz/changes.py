"""Values of every datatype, and small changes to values and bytes: what inputs are made of and broken with."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from penstock_runtime.protocol.schema import ELEMENTS

SNIPPETS = [b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"-", b"0", b"9" * 25, b"1e400", b"null", b"true",
            b"NaN", b"\xff", b"\x00", b"\\ud800", b"[" * 200,
            b'"binary_data_size":4294967296,', b'"shape":[1,-1],']  # fmt: skip

ODD: list[Any] = [None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.0, -0.0, 1.5, 1e308,
                  float("nan"), float("inf"), "", "a", "å", "\ud800", "\0", "x" * 300, [], {}, [[]], [None], [0, 2**40],
                  [2**40, 2**40], [-1, 2], {"": None}, {"binary_data_size": 1}, {"binary_data": True},
                  {"binary_data_output": 1}]  # fmt: skip


def element(rng: random.Random, kind: str) -> Any:
    """Return a value of the datatype, extremes more often than chance would have it."""
    if kind == "BOOL":
        return rng.random() < 0.5
    if kind == "BYTES":
        return "".join(rng.choices('aå"\\\0[}\u2028\U0001f600', k=rng.randrange(4)))
    if kind.startswith("FP"):
        limits = np.finfo(ELEMENTS[kind].dtype)
        extremes = [0.0, -0.0, limits.max, limits.min, limits.tiny, limits.smallest_subnormal, limits.eps]
        return float(ELEMENTS[kind].dtype.type(rng.choice([*extremes, rng.uniform(-9, 9), rng.gauss(0, 1)])))
    bounds = np.iinfo(ELEMENTS[kind].dtype)
    return rng.choice([int(bounds.min), int(bounds.max), 0, 1, rng.randint(int(bounds.min), int(bounds.max))])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a JSON value, as its container and key."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from places(item)


def change_value(rng: random.Random, value: Any) -> None:
    """Change one place of a JSON value: to another value, to one from elsewhere in it, to nothing, or doubled."""
    found = list(places(value))
    if not found:
        return
    container, key = rng.choice(found)
    match rng.randrange(5):
        case 0 | 1:
            container[key] = copy.deepcopy(rng.choice(ODD))
        case 2:
            # Never a container: it could be put into itself.
            other, name = rng.choice(found)
            container[key] = None if isinstance(other[name], (dict, list)) else other[name]
        case 3:
            del container[key]
        case _ if isinstance(container, list):
            container.insert(key, container[key])
        case _:
            container[rng.choice(["id", "name", "data", "parameters", "outputs", "x"])] = container.pop(key)


def change_bytes(rng: random.Random, body: bytes, other: bytes) -> bytes:
    """Return `body` with a byte changed, a piece cut, doubled or taken from elsewhere, or a snippet put in."""
    at, end = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    match rng.randrange(6):
        case 0:
            return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
        case 1:
            return body[:at] + body[min(end, at + 1 + rng.randrange(40)) :]
        case 2:
            return body[:end] + body[at:]
        case 3:
            start = rng.randrange(len(other)) if other else 0
            return body[:at] + other[start:][: rng.randrange(60)] + body[at:]
        case 4:
            return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :] if at < len(body) else body
        case _:
            return body[:at] + rng.choice(SNIPPETS) + body[at:]
