"""Going out of service without failing a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from penstock_runtime.log import event
from penstock_runtime.server.listener import Listener

logger = logging.getLogger(__name__)


async def drain(
    listeners: Sequence[Listener],
    grace_seconds: float,
    shutdown_seconds: float,
    in_flight: Callable[[], int],
    more: Sequence[Callable[[float], Awaitable[bool]]] = (),
) -> bool:
    """Go on accepting for `grace_seconds`, finish for at most `shutdown_seconds`; return whether all was finished.

    The first listener is the data port's; the others stop after it. `more` are stopped along with it, each by a
    call with the deadline in the loop's time. Who calls has said already that it is not ready.
    """
    event(logger, "draining", grace_seconds=grace_seconds, in_flight=in_flight())
    await asyncio.sleep(grace_seconds)
    loop = asyncio.get_running_loop()
    data, *others = listeners
    deadline = loop.time() + shutdown_seconds
    finished = all(await asyncio.gather(*(stop(deadline) for stop in (data.stop, *more))))
    for listener in others:
        await listener.stop(loop.time() + 1.0)
    event(logger, "stopped", finished=finished, cut_off=0 if finished else in_flight())
    return finished
