"""The `Recorder` port: Kubernetes Events, few enough to be read.

Equal ones are counted instead of repeated, and one object gets a burst and then one every five minutes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from penstock.core.objects import EVENT, Object
from penstock.ports import Clock, ClusterError, Conflict

from .bucket import TokenBucket
from .transport import MERGE_PATCH, Api, Call, NotFound

log = logging.getLogger(__name__)

COMPONENT = "penstock"
BURST = 25
RATE = 1 / 300
MAX_MESSAGE = 1024
MAX_KEPT = 2000
SAME_FOR = 3600.0
"""Seconds; the API server forgets Events after an hour, by default."""

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Sent:
    name: str
    count: int
    at: float


class EventRecorder:
    """`penstock.ports.Recorder` on the Events of the API server."""

    def __init__(
        self,
        api: Api,
        clock: Clock,
        instance: str,
        *,
        on_drop: Callable[[str], None] = lambda reason: None,
        buckets: Callable[[], TokenBucket] = lambda: TokenBucket(RATE, BURST),
    ) -> None:
        """`instance` is this process's name in the Events; `on_drop` is told the reason of each that is lost."""
        self._api = api
        self._clock = clock
        self._instance = instance
        self._on_drop = on_drop
        self._new_bucket = buckets
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._sent: OrderedDict[_Key, _Sent] = OrderedDict()

    async def record(self, regarding: Object, kind: str, reason: str, message: str) -> None:
        """See `Recorder.record`."""
        try:
            await self._record(regarding, kind, reason, message)
        except Conflict as exc:
            self._on_drop("refused")
            log.info("an event was not written (%s: %s): %s", reason, message, exc)
        except ClusterError as exc:
            self._on_drop("refused")
            log.warning("an event was not written (%s: %s): %s", reason, message, exc)
        except Exception:
            self._on_drop("defect")
            log.exception("an event was not written (%s: %s)", reason, message)

    async def _record(self, regarding: Object, kind: str, reason: str, message: str) -> None:
        meta = regarding["metadata"]
        if not self._bucket(meta["uid"]).try_take():
            self._on_drop("rate")
            log.info("event (too many of this object to be written): %s: %s", reason, message)
            return
        if len(message) > MAX_MESSAGE:
            message = message[: MAX_MESSAGE - 1] + "…"
        now = self._clock.now()
        key = (meta["uid"], kind, reason, message)
        sent = self._sent.get(key)
        if sent is not None and now - sent.at < SAME_FOR and await self._count(meta["namespace"], sent, now):
            self._sent.move_to_end(key)
            return
        name = await self._create(regarding, key, now)
        self._sent[key] = _Sent(name, 1, now)
        if len(self._sent) > MAX_KEPT:
            self._sent.popitem(last=False)

    async def _count(self, namespace: str, sent: _Sent, now: float) -> bool:
        body = {"count": sent.count + 1, "lastTimestamp": _time(now)}
        try:
            await self._api.request(Call("patch", EVENT, namespace, sent.name, "", (), body, MERGE_PATCH))
        except NotFound:
            return False
        sent.count += 1
        sent.at = now
        return True

    async def _create(self, regarding: Object, key: _Key, now: float) -> str:
        meta = regarding["metadata"]
        _, kind, reason, message = key
        digest = hashlib.sha256("\0".join((*key, self._instance, str(now))).encode()).hexdigest()[:16]
        name = f"{meta['name'][:200]}.{digest}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": _time(now),
            "lastTimestamp": _time(now),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance[:128],
        }
        await self._api.request(Call("create", EVENT, meta["namespace"], body=body))
        return name

    def _bucket(self, uid: str) -> TokenBucket:
        bucket = self._buckets.get(uid)
        if bucket is None:
            bucket = self._buckets[uid] = self._new_bucket()
            if len(self._buckets) > MAX_KEPT:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(uid)
        return bucket


def _time(now: float) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
