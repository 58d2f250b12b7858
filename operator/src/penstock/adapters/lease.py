"""Leader election on a coordination.k8s.io Lease: one process at a time reconciles.

Expiry is judged by this process's own monotonic time since it saw the record change, never by the times in it:
those come from another clock. The leader gives up `renew_deadline` after its last successful renewal was *sent*,
the others wait `duration` after they *saw* it, and a request takes less than the difference.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock.core.objects import LEASE, Object, Ref
from penstock.ports import ClusterError, Conflict

from .transport import Api, Call, NotFound

log = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818
    """Another process may lead by now: end at once."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0
    request: float = 4.0

    def __post_init__(self) -> None:
        if not self.retry < self.renew_deadline < self.duration:
            raise ValueError("retry < renew_deadline < duration must hold")
        if self.request >= self.duration - self.renew_deadline:
            raise ValueError("request must be shorter than duration - renew_deadline")


class Elector:
    """Acquires, holds and releases one Lease. `api` should try once: the patience is here."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        terms: Terms = Terms(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identity` must be of this process alone: a restarted one is another."""
        self._api = api
        self._ref = Ref(LEASE, namespace, name)
        self._identity = identity
        self._terms = terms
        self._monotonic = monotonic
        self._record: Object | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    @property
    def leads(self) -> bool:
        """True while the lease is surely ours."""
        return self._renewed_at is not None and self._left() > 0

    async def acquire(self) -> None:
        """Return once this process leads, however long that takes."""
        waiting_for = ""
        while not await self._attempt():
            holder = _holder(self._record)
            if holder != waiting_for:
                log.info("waiting for the lease %s, held by %s", self._ref, holder or "nobody")
                waiting_for = holder
            await asyncio.sleep(self._terms.retry * random.uniform(1.0, 1.2))  # noqa: S311
        log.info("leading: %s is held by %s", self._ref, self._identity)

    async def hold(self) -> None:
        """Renew for ever; LeaseLost as soon as the lease may be another's."""
        while True:
            await asyncio.sleep(min(self._terms.retry, max(self._left(), 0.0)))
            try:
                async with asyncio.timeout(max(self._left(), 0.0)):
                    renewed = await self._attempt()
            except TimeoutError:
                renewed = False
            if not renewed and _holder(self._record) not in ("", self._identity):
                self._renewed_at = None
                raise LeaseLost(f"{self._ref} is held by {_holder(self._record)}")
            if self._left() <= 0:
                self._renewed_at = None
                raise LeaseLost(f"{self._ref} could not be renewed for {self._terms.renew_deadline:g} s")

    async def release(self) -> None:
        """Give the lease up, so that another need not wait for it to expire. Never raises."""
        if not self.leads or self._record is None:
            return
        self._renewed_at = None
        try:
            async with asyncio.timeout(self._terms.request):
                await self._put(self._record, holder="", seconds=1)
            log.info("released the lease %s", self._ref)
        except (ClusterError, TimeoutError) as exc:
            log.warning("the lease %s was not released and has to expire: %s", self._ref, exc)

    def _left(self) -> float:
        return (self._renewed_at or 0.0) + self._terms.renew_deadline - self._monotonic()

    async def _attempt(self) -> bool:
        """Try once to get or renew the lease. False where that failed or it is another's."""
        sent = self._monotonic()
        try:
            async with asyncio.timeout(self._terms.request):
                if self._renewed_at is None or self._record is None:
                    self._note(await self._read())
                if not self._may_take():
                    return False
                self._note(await self._take())
        except Conflict:
            # Somebody wrote in between: look again before the next try.
            return await self._look_again()
        except (ClusterError, TimeoutError) as exc:
            log.warning("the lease %s: %s", self._ref, str(exc) or f"no answer within {self._terms.request:g} s")
            return False
        self._renewed_at = sent
        return True

    async def _look_again(self) -> bool:
        try:
            async with asyncio.timeout(self._terms.request):
                self._note(await self._read())
        except (ClusterError, TimeoutError) as exc:
            log.warning("the lease %s: %s", self._ref, exc)
        return False

    async def _read(self) -> Object | None:
        try:
            return await self._api.request(Call("get", LEASE, self._ref.namespace, self._ref.name))
        except NotFound:
            return None

    def _note(self, record: Object | None) -> None:
        if record is None or self._record is None or record["spec"] != self._record["spec"]:
            self._seen_at = self._monotonic()
        self._record = record

    def _may_take(self) -> bool:
        holder = _holder(self._record)
        if self._record is None or holder in ("", self._identity):
            return True
        seconds = self._record["spec"].get("leaseDurationSeconds") or self._terms.duration
        return self._monotonic() - self._seen_at > max(float(seconds), self._terms.duration)

    async def _take(self) -> Object:
        if self._record is None:
            meta = {"name": self._ref.name, "namespace": self._ref.namespace}
            body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta}
            body["spec"] = self._spec(None, self._identity, self._terms.duration)
            return await self._api.request(Call("create", LEASE, self._ref.namespace, body=body))
        return await self._put(self._record, holder=self._identity, seconds=self._terms.duration)

    async def _put(self, record: Object, *, holder: str, seconds: float) -> Object:
        body = {**record, "spec": self._spec(record, holder, seconds)}
        try:
            return await self._api.request(Call("update", LEASE, self._ref.namespace, self._ref.name, body=body))
        except NotFound as exc:
            raise Conflict(str(exc)) from exc

    def _spec(self, record: Object | None, holder: str, seconds: float) -> Object:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = record["spec"] if record else {}
        same = record is not None and before.get("holderIdentity") == holder
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(seconds),
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if same or not holder else 1),
        }


def _holder(record: Object | None) -> str:
    return str(record["spec"].get("holderIdentity") or "") if record else ""
