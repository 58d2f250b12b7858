"""Gates: numbers in, a verdict and its evidence out. Pure: no I/O, no clock, no randomness.

`TwoSample` and `LatencyShift` are the tests; `penstock.core.gates.evidence` turns raw counters of pods into
their blocks for one rollout.
"""

from penstock.core.gates.latency import LatencyBlock, LatencyShift, LatencyState
from penstock.core.gates.twosample import TwoSample, TwoSampleState
from penstock.core.gates.verdict import Block, Verdict

__all__ = [
    "Block",
    "LatencyBlock",
    "LatencyShift",
    "LatencyState",
    "TwoSample",
    "TwoSampleState",
    "Verdict",
]
