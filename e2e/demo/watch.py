"""A thread that looks at the ModelDeployment twice a second and writes down what is new."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from e2e.demo.journal import Journal, Sighting
from e2e.demo.kube import Unreachable
from e2e.demo.settings import MODEL, NAMESPACE

PERIOD_SECONDS = 0.5
API = f"/apis/penstock.dev/v1alpha1/namespaces/{NAMESPACE}"

Get = Callable[[str], dict[str, Any] | None]


class Watcher:
    """Fills a journal until the end of its `with` block. `get` reads an API path."""

    def __init__(self, get: Get, journal: Journal) -> None:
        """Nothing is read before the block begins."""
        self._get = get
        self._journal = journal
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._analysis = ""

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self.look()

    def look(self) -> None:
        """Read once."""
        try:
            model = self._get(f"{API}/modeldeployments/{MODEL}")
            if model is None:
                return
            rollout = model.get("status", {}).get("rollout") or {}
            # At rest the status no longer names it; the last one tells how the rollout ended.
            self._analysis = (rollout.get("analysisRef") or {}).get("name") or self._analysis
            analysis = self._get(f"{API}/rolloutanalyses/{self._analysis}") if self._analysis else None
        except Unreachable as error:
            self._journal.blind(str(error))
            return
        self._journal.saw(Sighting(time.time(), model, analysis))

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, after a last look, so that the journal has the very last state."""
        self._stop.set()
        self._thread.join(timeout=10)
