"""Every version of one object, as the API server tells it: what was seen over time, and waiting for what comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import urllib3

from e2e.tests.cluster import Cluster, Object, Refused, collection

_WATCH_SECONDS = 20
_AGAIN_SECONDS = 0.3


@dataclass(frozen=True)
class Moment:
    """One version of the object; `live` is None once it is gone. `at` is monotonic, in seconds."""

    at: float
    live: Object | None

    @property
    def status(self) -> Object:
        """Its status; empty where there is none."""
        return (self.live or {}).get("status") or {}

    def field(self, *path: str) -> Any:
        """A field of the status, None where any part of the path is absent."""
        value: Any = self.status
        for part in path:
            value = (value or {}).get(part)
        return value


class Timeline:
    """Follows one object by a watch in a thread of its own, so that no version is missed."""

    def __init__(self, cluster: Cluster, kind: str, namespace: str, name: str) -> None:
        """Name what is followed; `start` begins."""
        self._cluster = cluster
        self._kind, self._namespace, self._name = kind, namespace, name
        self._changed = threading.Condition()
        self._moments: list[Moment] = []
        self._ended = threading.Event()
        self.trouble = ""

    def start(self) -> None:
        """Follow from now on."""
        version = self._relist()
        threading.Thread(target=self._follow, args=(version,), daemon=True).start()

    def stop(self) -> None:
        """Follow no longer; the thread ends with its current request."""
        self._ended.set()

    @property
    def now(self) -> Moment:
        """The latest version."""
        with self._changed:
            return self._moments[-1] if self._moments else Moment(time.monotonic(), None)

    def since(self, at: float) -> list[Moment]:
        """All versions from a monotonic time on."""
        with self._changed:
            return [m for m in self._moments if m.at >= at]

    def wait(self, seconds: float) -> None:
        """Until something changes, or the time is over."""
        with self._changed:
            self._changed.wait(seconds)

    def catch_up(self, version: str, seconds: float = 10) -> None:
        """Until this resourceVersion of the object has been seen; TimeoutError after the time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not any(m.live and m.live["metadata"]["resourceVersion"] == version for m in self._moments):
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"the watch never showed version {version} of {self._name}: {self.trouble}")

    def _follow(self, version: str) -> None:
        while not self._ended.is_set():
            try:
                with self._cluster.watch(self._kind, self._namespace, version, _WATCH_SECONDS) as events:
                    for event in events:
                        if event["type"] == "ERROR":
                            version = self._relist()
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        self._take(event)
            except Refused as refusal:
                self.trouble = str(refusal)
                if refusal.code == 410:
                    version = self._relist()
                self._ended.wait(_AGAIN_SECONDS)
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                self.trouble = str(error)
                self._ended.wait(_AGAIN_SECONDS)

    def _take(self, event: Object) -> None:
        if event["type"] == "BOOKMARK" or event["object"]["metadata"]["name"] != self._name:
            return
        self._record(None if event["type"] == "DELETED" else event["object"])

    def _relist(self) -> str:
        found = self._cluster.request("GET", collection(self._kind, self._namespace))
        live = next((o for o in found["items"] if o["metadata"]["name"] == self._name), None)
        if live is not None or self._moments:
            self._record(live)
        return str(found["metadata"]["resourceVersion"])

    def _record(self, live: Object | None) -> None:
        with self._changed:
            self._moments.append(Moment(time.monotonic(), live))
            self._changed.notify_all()


def runs(values: Iterable[Any]) -> list[Any]:
    """The values without immediate repetitions: [a, a, b, a] is [a, b, a]."""
    kept: list[Any] = []
    for value in values:
        if not kept or kept[-1] != value:
            kept.append(value)
    return kept


def weights(moments: Iterable[Moment]) -> list[int]:
    """The canary's applied weights over time, without repetitions."""
    return runs(m.field("traffic", "appliedWeight") or 0 for m in moments if m.live)


def seen(moments: Iterable[Moment], holds: Callable[[Moment], bool]) -> bool:
    """Whether any of the versions fits."""
    return any(holds(m) for m in moments)
