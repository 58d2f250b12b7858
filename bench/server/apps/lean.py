"""Penstock's server with everything left out that tells what it did: metrics, statistics, decisions, ids.

How much faster it is than the real one is what those cost. The command line is the same, with
`python -m bench.server.apps.lean` for `penstock-runtime`.
"""

from __future__ import annotations

import sys
from typing import Any

from penstock_runtime import __main__
from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.metrics import Histogram, Metrics
from penstock_runtime.server.statistics import Statistics

LEFT_OUT = (
    (Histogram, "observe"), (Histogram, "observe_each"), (Histogram, "observe_times"), (Metrics, "count_predictions"),
    (Statistics, "ran"), (Statistics, "answered"), (Statistics, "answered_together"), (Statistics, "ended"),
)  # fmt: skip


def leave_out() -> None:
    """Make this process's server count, decide and sign nothing; AttributeError where it has changed."""
    for owner, name in LEFT_OUT:
        getattr(owner, name)  # what the server has no more would be left out in vain, and unseen
        setattr(owner, name, _nothing)
    Issuer.issue = _no_id  # type: ignore[method-assign]
    Issuer.issue_each = _no_ids  # type: ignore[assignment, method-assign]
    Judge.__init__ = _decide_nothing(Judge.__init__)  # type: ignore[method-assign]


def _nothing(*_: Any, **__: Any) -> None:
    """Nobody counts."""


def _no_id(*_: Any, **__: Any) -> bytes:
    return b""


def _no_ids(_: Issuer, now: float, count: int, predictions: Any) -> list[bytes]:
    del now, predictions
    return [b""] * count


def _decide_nothing(prepare: Any) -> Any:
    def prepared(self: Judge, *words: Any, **more: Any) -> None:
        prepare(self, *words, **more)
        self.output = None

    return prepared


def main() -> int:
    """Run the command."""
    leave_out()
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
