"""The `Metrics` port without a Prometheus: reads the metrics ports of our own pods.

One call gives each counter one point, at the time its pod answered. What happened between two calls is not lost,
since the counters are raw; what a pod counted after its last scrape before it died is.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp

from penstock.core.gates.samples import Series
from penstock.ports import Clock, MetricsUnavailable, PodTarget, SampleQuery

from .exposition import parse
from .http import NoAnswer, Request, exchange, host
from .samples import bound, joined, series

PORT = "metrics"
_MAX_BODY = 4 << 20


class ScrapeMetrics:
    """`penstock.ports.Metrics` on the pods themselves."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, *, seconds: float = 5.0, parallel: int = 64
    ) -> None:
        self._session = session
        self._clock = clock
        self._seconds = seconds
        self._slots = asyncio.Semaphore(parallel)

    async def samples(self, query: SampleQuery) -> tuple[Series, ...]:
        """See `Metrics.samples`. A pod that does not answer has no point; when none does, that is an error."""
        pods = [pod for pod in query.pods if pod.ip and PORT in pod.ports]
        if not pods:
            return ()
        answers = await asyncio.gather(*(self._scrape(pod, query) for pod in pods))
        failures = [answer for answer in answers if isinstance(answer, str)]
        if len(failures) == len(pods):
            cause, count = Counter(failures).most_common(1)[0]
            raise MetricsUnavailable(f"{count} of {len(pods)} pods gave no metrics: {cause}")
        return joined(item for answer in answers if not isinstance(answer, str) for item in answer)

    async def _scrape(self, pod: PodTarget, query: SampleQuery) -> list[Series] | str:
        """A pod's series, or why there are none."""
        headers = {"Accept": "text/plain;version=0.0.4"}
        url = f"http://{host(pod.ip)}:{pod.ports[PORT]}/metrics"
        try:
            async with self._slots:
                answer = await exchange(self._session, Request(url, headers, None, self._seconds, _MAX_BODY))
                at = self._clock.now()
            if answer.status != 200:
                return f"{url} answered {answer.status}"
            return _read(pod, query, answer.body.decode(), at)
        except NoAnswer as exc:
            return f"{url}: {exc}"
        except ValueError as exc:
            return f"{url} answered with something else than metrics: {exc}"


def _read(pod: PodTarget, query: SampleQuery, text: str, at: float) -> list[Series]:
    bounds = None if query.bucket_bounds is None else {bound(text) for text in query.bucket_bounds}
    found = []
    for sample in parse(text, query.names):
        labels = sample.labels
        if labels.get("model") != query.model or at <= query.since:
            continue
        if bounds is not None and "le" in labels and bound(labels["le"]) not in bounds:
            continue
        found.append(series(pod.name, sample.name, labels, ((at, sample.value),)))
    return found
