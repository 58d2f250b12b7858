"""The operator's own HTTP port: /metrics, /livez, /readyz.

Liveness looks at this process only: an API server that is away is no reason to restart. Kopf ends by itself when
its watches cannot go on, and the process with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from .telemetry import CONTENT_TYPE, Telemetry

BEAT = 1.0
STALE = 15.0


@dataclass(slots=True)
class Health:
    """What the probes are told."""

    monotonic: Callable[[], float] = time.monotonic
    beat_at: float = 0.0
    readiness: dict[str, Callable[[], bool]] = field(default_factory=dict)
    """Conditions of readiness by name."""

    async def beat(self, telemetry: Telemetry) -> None:
        """Note for ever that the event loop turns, and how late."""
        while True:
            self.beat_at = self.monotonic()
            await asyncio.sleep(BEAT)
            telemetry.loop_lag.set(max(0.0, self.monotonic() - self.beat_at - BEAT))

    def live(self) -> Mapping[str, bool]:
        """Checks of liveness by name."""
        return {"event-loop": self.monotonic() - self.beat_at < STALE}

    def ready(self) -> Mapping[str, bool]:
        """Checks of readiness by name."""
        return {name: check() for name, check in self.readiness.items()}


def application(health: Health, telemetry: Telemetry) -> web.Application:
    """The web application."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def livez(_: web.Request) -> web.Response:
        return _checks(health.live())

    async def readyz(_: web.Request) -> web.Response:
        return _checks(health.ready())

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


def _checks(checks: Mapping[str, bool]) -> web.Response:
    text = "".join(f"{'ok ' if good else 'NOT'} {name}\n" for name, good in sorted(checks.items()))
    return web.Response(text=text, status=200 if all(checks.values()) else 503)


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Listen on all addresses; the caller ends it with `cleanup`. OSError where the port is taken."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
