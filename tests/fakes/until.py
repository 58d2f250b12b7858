"""Waiting for a condition that nothing signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return as soon as it holds; TimeoutError after so long."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the conditions are plain functions of plain state
            await asyncio.sleep(0.001)
