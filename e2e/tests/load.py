"""Users: requests at a constant rate, whatever the answers do, and the true labels a little later as feedback."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from e2e.tests.cluster import Cluster
from e2e.tests.zoo import INPUT, iris

FEEDBACK_SECONDS = 0.5
TIMEOUT_SECONDS = 20.0
MAX_OPEN = 400
KEPT_FAILURES = 20


@dataclass(frozen=True)
class Target:
    """Where requests go: an url, a Host header, and whether it is behind the API server's own proxy."""

    url: str
    host: str = ""
    through_api_server: bool = False


@dataclass
class Tally:
    """What the users saw. A request failed unless it was answered with 200."""

    sent: int = 0
    ok: int = 0
    failed: int = 0
    wrong: int = 0
    labels: int = 0
    labels_refused: int = 0
    by_revision: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        """Count a failure and keep the first few for the report."""
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {what}")

    def __str__(self) -> str:
        revisions = ", ".join(f"{r} {n}" for r, n in self.by_revision.most_common())
        return (
            f"{self.sent} sent, {self.ok} ok ({revisions}), {self.failed} failed, "
            f"{self.wrong} wrong answers, {self.labels} labels"
        )


class Load:
    """A steady stream of requests for one model, in a thread of its own, until stopped."""

    def __init__(self, cluster: Cluster, namespace: str, model: str, target: Target, rate: float, labels: bool) -> None:
        """`rate` in requests per second; `labels`: whether the true ones are sent as feedback."""
        self._cluster, self._model, self._target = cluster, model, target
        self._feedback_path = f"api/v1/namespaces/{namespace}/services/{model}:admin/proxy/v2/models/{model}/feedback"
        self.rate, self._labels = rate, labels
        self.tally = Tally()
        self._known: list[tuple[str, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._random = random.Random(11)
        self.crash: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def forget_failures(self) -> None:
        """Count failures from now on: a gateway needs a moment to learn of a new route."""
        self.tally.failed = 0
        self.tally.failures.clear()

    def stop(self) -> Tally:
        """End, wait for the answers under way, and tell what was seen."""
        self._stop.set()
        self._thread.join(TIMEOUT_SECONDS + 5)
        return self.tally

    async def _run(self) -> None:
        try:
            await self._send_until_stopped()
        except BaseException as error:
            self.crash = error
            raise

    async def _send_until_stopped(self) -> None:
        api = self._cluster.access
        context: Any = api.context() if api.host.startswith("https") else False
        connector = aiohttp.TCPConnector(limit=64, ssl=context)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            labeller = asyncio.create_task(self._label(session)) if self._labels else None
            under_way: set[asyncio.Task[None]] = set()
            began, number = time.monotonic(), 0
            while not self._stop.is_set():
                due = int((time.monotonic() - began) * self.rate)
                while number < due and len(under_way) < MAX_OPEN:
                    number += 1
                    task = asyncio.create_task(self._ask(session))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                number = max(number, due - MAX_OPEN)
                await asyncio.sleep(1 / max(self.rate, 1))
            await asyncio.gather(*under_way, return_exceptions=True)
            if labeller:
                labeller.cancel()

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        data = iris()
        row = self._random.randrange(len(data.rows))
        values = [float(v) for v in data.rows[row]]
        body = {"inputs": [{"name": INPUT, "datatype": "FP32", "shape": [1, len(values)], "data": values}]}
        headers = dict(self._cluster.access.headers) if self._target.through_api_server else {}
        if self._target.host:
            headers["Host"] = self._target.host
        self.tally.sent += 1
        try:
            async with session.post(self._target.url, json=body, headers=headers) as answer:
                text = await answer.read()
                if answer.status != 200:
                    self.tally.fail(f"{answer.status} {text[:200]!r} from {answer.headers.get('penstock-revision')}")
                    return
                self._judge(await answer.json(), answer.headers, int(data.labels[row]))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.tally.fail(f"{type(error).__name__} {error}")

    def _judge(self, answer: Mapping[str, Any], headers: Mapping[str, str], truth: int) -> None:
        self.tally.ok += 1
        self.tally.by_revision[headers.get("penstock-revision", "?")] += 1
        said = next(o["data"][0] for o in answer["outputs"] if o["name"] == "label")
        self.tally.wrong += said != truth
        if self._labels and "penstock-prediction-id" in headers:
            self._known.append((headers["penstock-prediction-id"], truth))

    async def _label(self, session: aiohttp.ClientSession) -> None:
        """Labels go to the admin port, which no gateway shows; the API server's proxy reaches it."""
        url = f"{self._cluster.access.host}/{self._feedback_path}"
        while True:
            await asyncio.sleep(FEEDBACK_SECONDS)
            batch, self._known = self._known, []
            if not batch:
                continue
            items = [{"id": id_, "label": label} for id_, label in batch]
            try:
                async with session.post(url, json=items, headers=dict(self._cluster.access.headers)) as answer:
                    if answer.status == 200:
                        took = await answer.json()
                        self.tally.labels += took["accepted"]
                        self.tally.labels_refused += sum(took["rejected"].values())
                    else:
                        self._known = batch + self._known
            except (aiohttp.ClientError, TimeoutError):
                self._known = batch + self._known
