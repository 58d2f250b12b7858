"""One reconcile: gather, decide, write evidence and status, act, record. The way through the house, on one screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from penstock.api.conditions import Reason
from penstock.api.status import Status
from penstock.core import plan, rollout, wake
from penstock.core.objects import Object
from penstock.core.status import complete
from penstock.core.world import Settings
from penstock.ports import Clock, Cluster, Inspector, Invalid, Metrics, Recorder
from penstock.shell.evidence import measure, write_evidence
from penstock.shell.gather import gather


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Brings one ModelDeployment a step further. Keeps nothing between two reconciles."""

    cluster: Cluster
    metrics: Metrics
    inspector: Inspector
    recorder: Recorder
    clock: Clock
    settings: Settings
    told: Callable[[tuple[str, str], Status | None], object] = lambda key, status: None
    """Called with the status that a ModelDeployment has after each reconcile; None for one that is gone."""

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """One pass over `key` = (namespace, name). Returns when to come again (unix seconds), None if nothing is due.

        Raises ports.Conflict where something changed meanwhile (come again soon), and ports.ClusterError.
        """
        seen = await gather(self.cluster, self.inspector, key, self.settings, self.clock.now())
        if seen is None:
            self.told(key, None)
            return None
        world, running = await measure(self.cluster, self.metrics, seen)
        _, move = rollout.decide(world)
        after = rollout.after(world, move)
        status = complete(after, world.status)
        if running is not None:
            await write_evidence(self.cluster, world, running, move)
        if status is not world.status:
            await self.cluster.replace_status({**seen.live, "status": status.to_wire()})
        self.told(key, status)
        if move is not None and not move.silent:  # before the actions: a conflict there ends this reconcile
            kind = "Warning" if move.warning else "Normal"
            await self.recorder.record(seen.live, kind, move.reason, move.message)
        after = replace(after, status=status)
        for action in plan.actions(after, seen.objects):
            await self._execute(seen.live, action)
        return world.now if move is not None else wake.next_time(after)

    async def _execute(self, regarding: Object, action: plan.Action) -> None:
        try:
            await self._write(action)
        except Invalid as error:
            await self.recorder.record(regarding, "Warning", Reason.REFUSED_BY_CLUSTER, str(error))
            raise

    async def _write(self, action: plan.Action) -> None:
        match action:
            case plan.Create(manifest):
                await self.cluster.create(manifest)
            case plan.Apply(manifest, fence):
                await self.cluster.apply(manifest, fence)
            case plan.Annotate(ref, notes, fence):
                await self.cluster.annotate(ref, notes, fence)
            case plan.Delete(ref, fence):
                await self.cluster.delete(ref, fence)
