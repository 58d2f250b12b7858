"""Where the story is told: a live picture on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from e2e.demo.frame import Frame, picture
from e2e.demo.journal import Journal
from e2e.demo.view import draw

PULSE_SECONDS = 10.0
LOOK_SECONDS = 0.5


class Screen(Protocol):
    """A context manager; `tell` says a line that stays."""

    def tell(self, text: str) -> None:
        """Say a line that stays, above the live picture where there is one."""

    def __enter__(self) -> Self:
        """Begin to show the journal."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing it."""


def choose(journal: Journal, *, plain: bool) -> Screen:
    """The live picture where stdout is a terminal that can show it, unless `plain` lines are asked for."""
    console = Console(highlight=False)
    if plain or not console.is_terminal or console.is_dumb_terminal:
        return PlainScreen(journal)
    return LiveScreen(journal, console)


class LiveScreen:
    """The picture at the bottom of the terminal, redrawn twice a second."""

    def __init__(self, journal: Journal, console: Console) -> None:
        """Nothing is shown before the `with` block."""
        self._console = console
        self._live = Live(
            console=console,
            get_renderable=lambda: draw(picture(journal, time.time()), console.width),
            refresh_per_second=2,
            transient=True,
        )

    def tell(self, text: str) -> None:
        """Say a line that stays, above the picture."""
        self._console.print(text, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; the picture goes, the lines stay."""
        self._live.stop()


class PlainScreen:
    """A line whenever the story moves, and every ten seconds otherwise."""

    def __init__(self, journal: Journal) -> None:
        """Nothing is shown before the `with` block."""
        self._journal = journal
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._shown: tuple[object, ...] = ()
        self._shown_at = 0.0

    def tell(self, text: str) -> None:
        """Say a line."""
        print(text, flush=True)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._look(time.time())

    def _look(self, now: float) -> None:
        frame = picture(self._journal, now)
        key = milestone(frame)
        if frame.title and (key != self._shown or now - self._shown_at >= PULSE_SECONDS):
            self._shown, self._shown_at = key, now
            self.tell(line(frame))

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stop.set()
        self._thread.join(timeout=5)
        sys.stdout.flush()


def milestone(frame: Frame) -> tuple[object, ...]:
    """What must change for a new line to be worth it."""
    verdicts = tuple((gate.name, gate.verdict) for gate in frame.gates)
    return (frame.phase, frame.stage, frame.step, frame.weight, verdicts, frame.trouble)


def line(frame: Frame) -> str:
    """A picture as one line."""
    parts = [f"{frame.elapsed:6.1f} s  {frame.phase}{'/' + frame.stage if frame.stage else ''}"]
    if frame.step:
        parts.append(f"step {frame.step}")
    for name, arm in (("stable", frame.stable), ("canary", frame.canary)):
        if arm is not None:
            weight = f" {frame.weight} %" if name == "canary" else ""
            accuracy = "" if arm.accuracy is None else f" {arm.accuracy:.1%} right"
            p50 = "" if arm.p50_ms is None else f" {arm.p50_ms:.1f} ms"
            parts.append(f"{name} {arm.version} {arm.ready}{weight}{accuracy}{p50}")
    parts += [
        f"{g.name} {g.verdict} (worse {g.log_fail:.1f}/{g.needs_fail:.1f}, "
        f"not worse {g.log_pass:.1f}/{g.needs_pass:.1f}, n={g.canary_n:,})"
        for g in frame.gates
    ]
    if frame.rate:
        parts.append(f"{frame.rate:.0f} req/s, {frame.failed} failed")
    if frame.trouble:
        parts.append(f"cannot see the cluster: {frame.trouble}")
    return " | ".join(parts)
