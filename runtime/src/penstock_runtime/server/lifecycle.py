"""`penstock-runtime serve` from its start to its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock_runtime import termination
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.log import event
from penstock_runtime.server.banner import banner
from penstock_runtime.server.process import Process
from penstock_runtime.server.settings import Settings, SettingsError
from penstock_runtime.server.sockets import ListenError
from penstock_runtime.server.workers.supervisor import Supervisor
from penstock_runtime.terminal import for_people

logger = logging.getLogger(__name__)

_FAILURES = {
    ModelLoadError: "ModelLoadFailed",
    SettingsError: "InvalidConfiguration",
    ListenError: "InvalidConfiguration",
}


def serve(settings: Settings, arguments: Sequence[str]) -> int:
    """Run a serving process to its end and return its exit code: 0 after a drain, 1 if it cannot serve.

    `arguments`: the command line's words, with which workers are started where there are several.
    """
    import uvloop

    def ready() -> None:
        freeze()
        # A worker's ports are not those that people use.
        if settings.worker is None and for_people():
            lines = banner(settings.host, process.ports, process.schemas)
            sys.stderr.write("".join(f"{line}\n" for line in lines))

    try:
        if settings.workers > 1 and settings.worker is None:
            return uvloop.run(_supervise(Supervisor(settings, arguments)))
        process = Process(settings, on_ready=ready)
        uvloop.run(_serve_until_signal(process))
    except (ModelLoadError, SettingsError, ListenError) as error:
        fail(settings.termination_log, _FAILURES[type(error)], str(error))
        return 1
    return 0


def freeze() -> None:
    """Spare the garbage collector what lives as long as the process, so that no request waits for it."""
    gc.collect()
    gc.freeze()


def fail(termination_log: Path | None, reason: str, message: str) -> None:
    """Tell people and the operator why the process cannot serve."""
    event(logger, "cannot serve", level=logging.ERROR, reason=reason, error=message)
    termination.write(termination_log, {"reason": reason, "message": message})


async def _supervise(supervisor: Supervisor) -> int:
    return await supervisor.run(_stop_at_signal())


async def _serve_until_signal(process: Process) -> None:
    if not await process.run(_stop_at_signal()):
        # A thread still loads or runs the model, and would keep the process for as long as it does.
        logging.shutdown()
        os._exit(0)


def _stop_at_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(130)  # a second Ctrl-C means now
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop
