"""How a process ends: by a signal, or since it cannot serve."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

from penstock_runtime import termination
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.log import event

logger = logging.getLogger(__name__)


def fail(termination_log: Path | None, error: Exception) -> None:
    """Tell people and the operator why the process cannot serve."""
    reason = "ModelLoadFailed" if isinstance(error, ModelLoadError) else "InvalidConfiguration"
    event(logger, "cannot serve", level=logging.ERROR, reason=reason, error=str(error))
    termination.write(termination_log, {"reason": reason, "message": str(error)})


def stop_at_signal() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set; to be called within the loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(130)  # a second Ctrl-C means now
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop
