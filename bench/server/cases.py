"""What is measured, and the bars that Penstock sets itself: the table of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["json", "binary", "grpc"]
PENSTOCK, LEAN, MLSERVER, KSERVE, BARE, ALONE = "penstock", "lean", "mlserver", "kserve", "bare", "alone"
MLSERVER_BATCHING = "mlserver-batching"
PEERS = (MLSERVER, MLSERVER_BATCHING, KSERVE)
BEST_PEER = "best peer"
TITLES = {
    PENSTOCK: "Penstock", LEAN: "Penstock, counting nothing", MLSERVER: "MLServer",
    MLSERVER_BATCHING: "MLServer, batching", KSERVE: "KServe SDK",
    BARE: "bare stack", ALONE: "ORT alone", BEST_PEER: "the best peer",
}  # fmt: skip
_ALL = (PENSTOCK, MLSERVER, KSERVE, BARE)
# Where many ask at once, MLServer's own batching has something to take together.
_MANY = (PENSTOCK, MLSERVER, MLSERVER_BATCHING, KSERVE, BARE)


@dataclass(frozen=True, slots=True)
class Bar:
    """Penstock's rate is at least `least` times that of `than`: a server, or the quickest peer."""

    than: str
    least: float

    @property
    def text(self) -> str:
        """The bar in words."""
        return f">= {self.least:g} x {TITLES[self.than]}"


@dataclass(frozen=True, slots=True)
class Case:
    """A model asked in one way by so many at once, each with `streams` requests under way (gRPC only).

    `tail`: Penstock's p99 is no worse than the best peer's p50.
    """

    id: str
    title: str
    model: str
    protocol: Protocol
    connections: int
    bars: tuple[Bar, ...]
    streams: int = 1
    servers: tuple[str, ...] = _ALL
    tail: bool = False

    @property
    def at_once(self) -> int:
        """Requests under way."""
        return self.connections * self.streams


def _grpc(model: str, title: str, least: float, connections: int, streams: int = 1) -> Case:
    at_once = connections * streams
    return Case(f"{model}-grpc-{at_once}", f"{title}, gRPC, {at_once} at once", model, "grpc", connections,
                (Bar(BEST_PEER, least if at_once > 1 else 1.0),), streams)  # fmt: skip


CASES = (
    Case("iris-json-64", "iris, JSON, 64 connections", "iris", "json", 64,
         (Bar(BEST_PEER, 5.0), Bar(BARE, 0.8)), servers=_MANY, tail=True),
    Case("iris-json-1", "iris, JSON, 1 connection", "iris", "json", 1, (Bar(BEST_PEER, 2.0),)),
    Case("iris-cost", "iris, JSON, 64 connections: with and without metrics, ids, feedback keys", "iris", "json", 64,
         (Bar(LEAN, 0.95),), servers=(PENSTOCK, LEAN)),
    _grpc("iris", "iris", 1.6, 8, 8),
    _grpc("iris", "iris", 1.6, 4, 2),
    _grpc("iris", "iris", 1.6, 1),
    Case("mlp-json-64", "MLP, JSON, 64 connections", "mlp", "json", 64, (Bar(BEST_PEER, 3.5),),
         servers=_MANY),
    Case("mlp-binary-64", "MLP, binary, 64 connections", "mlp", "binary", 64, (Bar(BARE, 1.2),)),
    _grpc("mlp", "MLP", 1.6, 8, 8),
    _grpc("mlp", "MLP", 1.6, 1),
    Case("conv-json-16", "convnet, JSON, 16 connections", "conv", "json", 16, (Bar(BEST_PEER, 1.5),)),
    Case("conv-binary-16", "convnet, binary, 16 connections", "conv", "binary", 16, (Bar(ALONE, 0.9),),
         servers=(*_ALL, ALONE)),
    _grpc("conv", "convnet", 1.2, 4, 4),
    _grpc("conv", "convnet", 1.2, 1),
)  # fmt: skip

START, OVERLOAD, WORKERS, SHADOW = "start", "overload", "workers", "shadow"
EXTRAS = (START, OVERLOAD, WORKERS, SHADOW)
# Of a process from its start to ready, and of its memory once it idles.
MOST_START_SECONDS = 0.8
MOST_IDLE_MB = 100.0
OVERLOAD_FACTOR = 3.0
LEAST_GOODPUT = 0.9
MOST_REFUSAL_SECONDS = 0.005
DEADLINE_SECONDS = 1.0


def choose(words: str) -> tuple[list[Case], frozenset[str]]:
    """Return the cases that `words` name (all if empty), and which of `EXTRAS` are among them.

    A word may be the beginning of names: `iris`, `mlp-grpc`. Raises ValueError for one that names nothing.
    """
    wanted = words.replace(",", " ").split()
    names = [case.id for case in CASES] + list(EXTRAS)
    for word in wanted:
        if not any(name.startswith(word) for name in names):
            raise ValueError(f"there is no case '{word}'; there are: {', '.join(names)}")
    chosen = {name for name in names if not wanted or any(name.startswith(word) for word in wanted)}
    return [case for case in CASES if case.id in chosen], frozenset(chosen.intersection(EXTRAS))
