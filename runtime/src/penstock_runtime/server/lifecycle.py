"""`penstock-runtime serve` from its start to its exit code."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Sequence

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.server.banner import banner
from penstock_runtime.server.ending import fail, stop_at_signal
from penstock_runtime.server.process import Process
from penstock_runtime.server.settings import Settings, SettingsError
from penstock_runtime.server.sockets import ListenError
from penstock_runtime.server.workers.supervisor import Supervisor
from penstock_runtime.terminal import for_people


def serve(settings: Settings, arguments: Sequence[str]) -> int:
    """Run a serving process to its end and return its exit code: 0 after a drain, 1 if it cannot serve.

    `arguments`: the command line's words, with which workers are started where there are several.
    """
    import uvloop

    def ready() -> None:
        freeze()
        # A worker's ports are not those that people use.
        if settings.worker is None and for_people():
            lines = banner(settings.host, process.ports, process.schemas, settings.security)
            sys.stderr.write("".join(f"{line}\n" for line in lines))

    try:
        if settings.workers > 1 and settings.worker is None:
            return uvloop.run(_supervise(Supervisor(settings, arguments)))
        process = Process(settings, on_ready=ready)
        uvloop.run(_serve_until_signal(process))
    except (ModelLoadError, SettingsError, ListenError) as error:
        fail(settings.termination_log, error)
        return 1
    return 0


def freeze() -> None:
    """Spare the garbage collector what lives as long as the process, so that no request waits for it."""
    gc.collect()
    gc.freeze()


async def _supervise(supervisor: Supervisor) -> int:
    return await supervisor.run(stop_at_signal())


async def _serve_until_signal(process: Process) -> None:
    if not await process.run(stop_at_signal()):
        # A thread still loads or runs the model, and would keep the process for as long as it does.
        logging.shutdown()
        os._exit(0)
