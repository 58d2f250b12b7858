"""`penstock-runtime agent` from its start to its exit code."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from penstock_runtime.server.agent import settings as agent_settings
from penstock_runtime.server.agent.process import AgentProcess
from penstock_runtime.server.agent.settings import AgentSettings
from penstock_runtime.server.ending import fail, stop_at_signal
from penstock_runtime.server.settings import SettingsError
from penstock_runtime.server.sockets import ListenError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    agent_settings.add_arguments(parser)


def run(args: Namespace, arguments: Sequence[str]) -> int:
    """Run an agent to its end and return its exit code: 0 after a drain, 1 if it cannot begin.

    `arguments`: the command line's words, with which workers are started where there are several.
    """
    import uvloop

    try:
        return uvloop.run(_run(agent_settings.read_settings(args, os.environ), arguments))
    except (SettingsError, ListenError) as error:
        fail(args.termination_log, error)
        return 1


async def _run(settings: AgentSettings, arguments: Sequence[str]) -> int:
    if settings.workers > 1 and settings.worker is None:
        # It draws in more than an agent needs.
        from penstock_runtime.server.workers.supervisor import Supervisor

        return await Supervisor(settings, arguments).run(stop_at_signal())
    await AgentProcess(settings).run(stop_at_signal())
    return 0
