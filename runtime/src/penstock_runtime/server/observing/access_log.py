"""A log line for some of the requests."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from threading import Lock

from penstock_runtime.log import event
from penstock_runtime.server.observing.observed import Observed

logger = logging.getLogger(__name__)

# Whatever the load and the share: more would fill disks, and keep the event loop from its work.
MAX_LINES_A_SECOND = 100


class AccessLog:
    """Logs a share of the requests, and all that the server failed, up to 100 a second; from any thread."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`share` is from 0 to 1, and may be changed."""
        self.share = share
        self._clock = clock
        self._counting = Lock()
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def tell(self, seen: Observed) -> None:
        """Log the request, if its turn has come. The next line says how many were left out for there being too many."""
        if not self.share or not (seen.failed or random.random() < self.share):  # noqa: S311 - no secret hangs on it
            return
        with self._counting:
            second = int(self._clock())
            if second != self._second:
                self._second, self._lines = second, 0
            if self._lines >= MAX_LINES_A_SECOND:
                self._left_out += 1
                return
            self._lines += 1
            left_out, self._left_out = self._left_out, 0
        more = {"left_out": left_out} if left_out else {}
        event(logger, "request", level=logging.ERROR if seen.failed else logging.INFO, **seen.fields(), **more)
