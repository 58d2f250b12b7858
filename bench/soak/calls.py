"""Calls over gRPC beside the requests over HTTP: h2load, round after round."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.server.tools import count_h2load
from e2e.cluster.console import Problem


@dataclass
class Calls:
    """Rounds of h2load, each of `calls` calls over new connections; counts of the rounds that have ended.

    `words` is the command of a round, `answer_bytes` the length of an answer's body: a gRPC error has none, and h2load
    takes it for a success.
    """

    words: Sequence[str]
    calls: int
    answer_bytes: int
    answered: int = 0
    failed: int = 0
    _round: subprocess.Popen[str] | None = field(default=None, init=False)

    def keep_up(self) -> None:
        """Begin a round if none is under way; Problem if h2load failed."""
        if self._round is not None and self._round.poll() is None:
            return
        self._count(timeout=1.0)
        self._round = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self, timeout: float) -> None:
        """Wait for the end of the round, if one is under way; Problem if it has none within `timeout` seconds."""
        self._count(timeout)

    def close(self) -> None:
        """End a round that is under way, uncounted."""
        if self._round is not None:
            self._round.kill()
            self._round.communicate()
            self._round = None

    def _count(self, timeout: float) -> None:
        if self._round is None:
            return
        try:
            text, _ = self._round.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Problem(
                f"calls over gRPC had no end within {timeout:g} s", f"by hand: {' '.join(self.words)}"
            ) from None
        if self._round.returncode:
            raise Problem(f"h2load failed: {text.strip()[-300:]}", f"by hand: {' '.join(self.words)}")
        self._round = None
        answered = count_h2load(text).data // self.answer_bytes
        self.answered += answered
        self.failed += self.calls - answered
