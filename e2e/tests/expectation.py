"""An expectation: a sentence about the cluster that must come true, or stay true, within a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

POLL_SECONDS = 0.5


class Unmet(AssertionError):  # noqa: N818 - reads as what it is
    """The expectation did not come true; the message says what was seen instead."""


@dataclass
class Expectation:
    """Awaited by `within`, or watched over by `for_the_next`; one that is neither fails its test.

    `problem` says what is still wrong, empty when the sentence is true; `wait` sleeps until something may have
    changed, at most the seconds it is given; `tell` takes what was found out, for whoever follows the story.
    """

    sentence: str
    problem: Callable[[], str]
    wait: Callable[[float], None] = time.sleep
    tell: Callable[[str], None] = print
    give_up: Callable[[], str] = lambda: ""
    checked: bool = field(default=False, init=False)

    def within(self, seconds: float) -> None:
        """Wait until it is true; Unmet after the time, or as soon as it can no longer come true."""
        self.checked = True
        began = time.monotonic()
        while problem := self.problem():
            hopeless = self.give_up()
            if hopeless or time.monotonic() - began > seconds:
                why = hopeless or f"after {seconds:.0f} s"
                raise Unmet(f"expected: {self.sentence}\n  but {why}: {problem}")
            self.wait(min(POLL_SECONDS, max(0.0, seconds - (time.monotonic() - began))))
        self.tell(f"{self.sentence} ({time.monotonic() - began:.1f} s)")

    def for_the_next(self, seconds: float) -> None:
        """Watch that it is true all the time from now on; Unmet as soon as it is not."""
        self.checked = True
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            if problem := self.problem():
                raise Unmet(f"expected: {self.sentence} for {seconds:.0f} s\n  but after {passed:.0f} s: {problem}")
            self.wait(min(POLL_SECONDS, seconds - passed))
        self.tell(f"{self.sentence}, all through {seconds:.0f} s")

    def now(self) -> None:
        """It must be true already."""
        self.within(0)
