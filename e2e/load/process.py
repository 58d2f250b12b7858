"""The load generator as a process of its own, so that what watches it cannot slow it down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Target:
    """What is under load. `url` is the gateway's or the model's; `feedback_url` the admin port's, empty for none."""

    url: str
    model: str
    data: Path
    host: str = ""
    feedback_url: str = ""
    feedback_delay: float = 2.0

    def arguments(self) -> list[str]:
        """The same as words of the command line."""
        words = ["--url", self.url, "--model", self.model, "--data", str(self.data), "--host", self.host]
        if self.feedback_url:
            words += ["--feedback-url", self.feedback_url, "--feedback-delay", str(self.feedback_delay)]
        return words


class LoadProcess:
    """A running load generator; a context manager that stops it at the end.

    `latest` is the last line it printed: totals since the start and the last whole second.
    """

    def __init__(self, target: Target, rate: float, on_second: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Start sending `rate` requests a second; `on_second` gets every line, on a thread of its own."""
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-load-")
        self._report = Path(self._folder.name) / "report.json"
        self._errors = (Path(self._folder.name) / "stderr").open("w+")
        self._on_second = on_second
        self._news = threading.Condition()
        self._lines = 0
        self.latest: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "e2e.load", *target.arguments(), "--rate", str(rate), "--report", self._report],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo: it stops the load in its own time
        )
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            with self._news:
                self.latest = line
                self._lines += 1
                self._news.notify_all()
            if self._on_second is not None:
                self._on_second(line)
        with self._news:
            self._lines += 1
            self._news.notify_all()

    def set_rate(self, rate: float) -> None:
        """Send `rate` requests a second from now on."""
        self._order(f"rate {rate}")

    def next_second(self, timeout: float = 10) -> dict[str, Any]:
        """Wait for the next line and return it; RuntimeError where the process has ended or says nothing."""
        with self._news:
            before = self._lines
            if not self._news.wait_for(lambda: self._lines > before, timeout) or not self._reader.is_alive():
                raise RuntimeError(f"the load generator says nothing: {self._complaint()}")
            return self.latest

    def stop(self) -> dict[str, Any]:
        """Stop it, after the answers under way; the whole report, with its timeline."""
        if self._process.poll() is None:
            self._order("stop")
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=5)
        try:
            report: dict[str, Any] = json.loads(self._report.read_text())
        except FileNotFoundError:
            raise RuntimeError(f"the load generator left no report: {self._complaint()}") from None
        return report

    def _order(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(f"the load generator has ended: {self._complaint()}") from None

    def _complaint(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"no message, exit status {self._process.poll()}"

    def close(self) -> None:
        """End the process, if it still runs, and forget its files."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        """The running generator."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()
