"""True labels that come late: posted in batches to the feedback port, some seconds after the prediction."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Sequence

from e2e.load.connection import Answer, Connection
from e2e.load.rows import Endpoint

BATCH = 1000
PERIOD_SECONDS = 0.5
ATTEMPTS = 5
ANSWER_SECONDS = 5.0

Label = tuple[str, int]


class LabelSender:
    """Holds labels back for `delay` seconds, then posts them; feedback is idempotent, so a failed post is retried."""

    def __init__(self, endpoint: Endpoint, model: str, delay: float, counts: Counter[str]) -> None:
        """`counts` gets accepted, lost and one entry per reason of rejection."""
        self._endpoint = endpoint
        self._path = f"/v2/models/{model}/feedback"
        self._delay = delay
        self._counts = counts
        self._waiting: deque[tuple[float, Label]] = deque()

    def add(self, prediction_id: str, label: int, now: float) -> None:
        """Note the true label of a prediction that was answered at loop time `now`."""
        self._waiting.append((now + self._delay, (prediction_id, label)))

    async def run(self) -> None:
        """Post what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            while batch := self._due(loop.time()):
                await self._deliver(batch)

    def _due(self, now: float) -> list[Label]:
        batch: list[Label] = []
        while self._waiting and self._waiting[0][0] <= now and len(batch) < BATCH:
            batch.append(self._waiting.popleft()[1])
        return batch

    async def _deliver(self, batch: Sequence[Label]) -> None:
        body = json.dumps([{"id": i, "label": label} for i, label in batch], separators=(",", ":")).encode()
        # A connection of its own for every batch: kept alive, it would stick to one pod.
        request = self._endpoint.post(self._path, body, close=True)
        for attempt in range(ATTEMPTS):
            answer = await self._post(request)
            if answer is not None and answer.status == 200:
                self._count(answer)
                return
            kind = "no answer" if answer is None else str(answer.status)
            self._counts[f"failed posts ({kind})"] += 1
            await asyncio.sleep(0.2 * 2**attempt)
        self._counts["lost"] += len(batch)

    def _count(self, answer: Answer) -> None:
        result = json.loads(answer.body)
        self._counts["accepted"] += result.get("accepted", 0)
        for reason, count in result.get("rejected", {}).items():
            self._counts[reason] += count

    async def _post(self, request: bytes) -> Answer | None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answer | None] = loop.create_future()

        def answered(_: Connection, answer: Answer) -> None:
            if not done.done():
                done.set_result(answer)

        def lost(_: Connection, busy: bool) -> None:
            if not done.done():
                done.set_result(None)

        connection = Connection(answered, lost)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.create_connection(lambda: connection, self._endpoint.address, self._endpoint.port)
                connection.send(request, loop.time())
                return await done
        except (OSError, TimeoutError):
            return None
        finally:
            connection.abort()
