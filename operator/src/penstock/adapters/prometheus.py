"""The `Metrics` port on a Prometheus (or what speaks its API: Thanos, Mimir, VictoriaMetrics).

Asks for raw samples by an instant query of a range selector. Never rate() or increase(): those extrapolate, and
the gates count events.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from penstock.core.gates.samples import Series
from penstock.ports import Clock, MetricsUnavailable, SampleQuery

from .http import Answer, NoAnswer, Request, TooLarge, exchange
from .samples import Points, bound, joined, series

SLACK = 60.0
"""Seconds added to the window, for clocks that differ."""
MAX_LOOKBACK = 6 * 3600.0
_MAX_BODY = 64 << 20
SLICE = 300.0
"""Seconds of samples asked for at a time where those since the cursor are too many for one answer."""
_ENOUGH = 900.0
"""Seconds of samples after the cursor that surely hold new ones: cursors of pods lie at most 600 s apart."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The admin's connection to a Prometheus. Files are read anew for each request, since secrets rotate."""

    url: str
    token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    matchers: Mapping[str, str] | None = None
    """Further labels that our series must have, such as the cluster's in a store of many."""
    seconds: float = 20.0

    def connector(self) -> aiohttp.TCPConnector:
        """How to connect. OSError where the CA's file cannot be read.

        No connection is kept: one that was made while the name led elsewhere (a restart, a hiccup of DNS) would be
        asked for ever, and a query every few seconds costs nothing.
        """
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True
        return aiohttp.TCPConnector(ssl=context, force_close=True, use_dns_cache=False)

    def headers(self) -> Mapping[str, str]:
        """The Authorization header. OSError where a file of credentials cannot be read."""
        if self.token_file is not None:
            return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        if self.username:
            password = self.password_file.read_text().strip() if self.password_file else ""
            return {"Authorization": aiohttp.encode_basic_auth(self.username, password, "utf-8")}
        return {}


class PrometheusMetrics:
    """`penstock.ports.Metrics` on Prometheus' HTTP API."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock, connection: Connection) -> None:
        self._session = session
        self._clock = clock
        self._connection = connection
        self._api = connection.url.rstrip("/") + "/api/v1/query"

    async def samples(self, query: SampleQuery) -> tuple[Series, ...]:
        """See `Metrics.samples`."""
        url, now = self._connection.url, self._clock.now()
        try:
            try:
                found = await self._ask(query, now, None)
            except TooLarge:
                found = await self._first(query, now)
            return joined(_series(item, query) for item in found if _points(item, query))
        except OSError as exc:
            raise MetricsUnavailable(f"{url}: its credentials cannot be read: {exc}") from exc
        except NoAnswer as exc:
            raise MetricsUnavailable(f"{url}: {exc}") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise MetricsUnavailable(f"{url}: the answer is not one of Prometheus ({exc}); is the URL right?") from exc

    async def _first(self, query: SampleQuery, now: float) -> Sequence[Any]:
        """The oldest samples wanted, some minutes at a time until some are surely new: the next look goes on there."""
        begin = max(query.since, now - MAX_LOOKBACK)
        until, merged = begin, dict[tuple[tuple[str, str], ...], Any]()
        while until < now and not _reach(merged.values(), begin + _ENOUGH):
            after, until = until, min(until + SLICE, now)
            for item in await self._ask(replace(query, since=after), until, until):
                values = [value for value in item["values"] if after < float(value[0]) <= until]
                whole = merged.setdefault(tuple(sorted(item["metric"].items())), {**item, "values": []})
                whole["values"] += values
        return tuple(merged.values())

    async def _ask(self, query: SampleQuery, now: float, at: float | None) -> Sequence[Any]:
        text = promql(query, now, self._connection.matchers or {})
        return _result(await exchange(self._session, self._request(text, at)))

    def _request(self, text: str, at: float | None) -> Request:
        connection = self._connection
        moment = {} if at is None else {"time": f"{at:.3f}"}
        return Request(
            self._api,
            {"Accept": "application/json", **connection.headers()},
            # Thanos answers in part unless told not to; others ignore this.
            {"query": text, **moment, "partial_response": "false", "timeout": f"{connection.seconds:g}s"},
            connection.seconds,
            _MAX_BODY,
        )


def promql(query: SampleQuery, now: float, matchers: Mapping[str, str]) -> str:
    """The range selector of a query: one model's raw counters since its cursor."""
    window = min(max(now - query.since, 0.0) + SLACK, MAX_LOOKBACK)
    parts = [
        f'__name__=~"{_alternatives(query.names)}"',
        f'namespace="{_quoted(query.namespace)}"',
        f'model="{_quoted(query.model)}"',
        *(f'{name}="{_quoted(value)}"' for name, value in sorted(matchers.items())),
    ]
    if query.bucket_bounds is not None:
        # The empty alternative lets through what is no bucket. Whole numbers are stored as 1 or as 1.0.
        spellings = {s for b in query.bucket_bounds for s in (bound(b), bound(b).removesuffix(".0"))}
        parts.append(f'le=~"|{_alternatives(sorted(spellings))}"')
    return f"{{{','.join(parts)}}}[{math.ceil(window)}s]"


def _reach(found: Iterable[Any], at: float) -> bool:
    return any(float(value[0]) > at for item in found for value in item["values"][-1:])


def _points(item: Any, query: SampleQuery) -> Points:
    points = ((float(at), float(value)) for at, value in item["values"])
    return tuple(point for point in points if point[0] > query.since)


def _series(item: Any, query: SampleQuery) -> Series:
    labels: Mapping[str, str] = item["metric"]
    if not labels.get("pod"):
        raise NoAnswer(
            f"{labels['__name__']} of model {query.model} has no label `pod`: "
            "the scrape configuration must set `namespace` and `pod` as target labels"
        )
    return series(labels["pod"], labels["__name__"], labels, _points(item, query))


def _result(answer: Answer) -> Sequence[Any]:
    try:
        body = json.loads(answer.body)
    except ValueError:
        raise NoAnswer(f"it answered {answer.status}: {_start(answer.body)}") from None
    if answer.status != 200 or body.get("status") != "success":
        why = body.get("error") if isinstance(body, dict) else None
        raise NoAnswer(f"it answered {answer.status}: {why or _start(answer.body)}")
    if body.get("warnings"):
        # A selector of raw samples has nothing to be warned about but sources that did not answer.
        raise NoAnswer(f"the answer may lack a part: {'; '.join(body['warnings'])[:500]}")
    if body["data"]["resultType"] != "matrix":
        raise ValueError(f"resultType is {body['data']['resultType']}")
    result: Sequence[Any] = body["data"]["result"]
    return result


def _start(body: bytes) -> str:
    return body[:200].decode(errors="replace").strip() or "nothing"


def _quoted(text: str) -> str:
    """Inside of a PromQL string in double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _alternatives(texts: Sequence[str]) -> str:
    return _quoted("|".join(re.escape(text) for text in texts))
