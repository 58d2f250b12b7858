"""From the status to the cluster: which objects must exist, and the actions that get there from what is live.

Every action is idempotent and fenced by the state it was decided on. Nothing is applied that is already so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.api.status import Outcome, Stage
from penstock.core import manifests, observe
from penstock.core import situations as s
from penstock.core.objects import GROUP, LABEL_REVISION, Fence, Object, Ref, fence_of, ref_of
from penstock.core.quantities import same
from penstock.core.render import controller_revision
from penstock.core.routing import Split
from penstock.core.world import Revision, World

ANNOTATION_APPLIED = f"{GROUP}/applied"


@dataclass(frozen=True, slots=True)
class Create:
    """POST: the object must not exist yet."""

    manifest: Object


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply, fenced."""

    manifest: Object
    fence: Fence


@dataclass(frozen=True, slots=True)
class Annotate:
    """Add annotations, fenced."""

    ref: Ref
    annotations: Mapping[str, str]
    fence: Fence


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete, fenced."""

    ref: Ref
    fence: Fence


Action: TypeAlias = Create | Apply | Annotate | Delete


@dataclass(frozen=True, slots=True)
class Live:
    """What exists of this ModelDeployment, as fetched at the beginning of the reconcile."""

    objects: Sequence[Object] = field(default=())

    def get(self, ref: Ref) -> Object | None:
        """The live object, if it exists."""
        return next((o for o in self.objects if ref_of(o) == ref), None)


def split_of(world: World) -> Split:
    """Who gets what, by the status."""
    status = world.status
    weight = (status.traffic.applied_weight if status.traffic else 0) or 0
    return Split(
        status.stable.revision if status.stable else None,
        status.canary.revision if status.canary else None,
        weight,
    )


def pods_wanted(world: World) -> dict[str, int]:
    """Pods per revision, by the status. Revisions that are not in it want none."""
    status = world.status
    wanted: dict[str, int] = {}
    for retiring in status.retiring:
        if retiring.revision and retiring.revision in world.revisions:
            wanted[retiring.revision] = min(world.spec.replicas, _deployed(world, retiring.revision))
    if status.stable and status.stable.revision:
        wanted[status.stable.revision] = world.spec.replicas
    if status.canary and status.canary.revision and status.rollout and status.rollout.stage != Stage.RESOLVING:
        wanted[status.canary.revision] = s.canary_pods_wanted(world)
    return wanted


def _deployed(world: World, revision: str) -> int:
    return len([p for p in world.revisions[revision].pods if not p.deleting])


def actions(world: World, live: Live) -> list[Action]:
    """All that is left to do, in order: records, then what serves, then the route, then what may go."""
    if world.conflict is not None or s.status_was_lost(world) or s.spec_is_unreadable(world):
        return []
    return [
        *_records(world),
        *_applies(_serving(world), live),
        *_applies(_routing(world), live),
        *_cohorts(world),
        *_removals(world, live),
    ]


# --- records -------------------------------------------------------------------------------------


def _records(world: World) -> Iterable[Action]:
    """The new revision's record, and on each record what is known of its digest and its end."""
    if world.new_key:
        yield Create(manifests.feedback_key(world.owner, world.new_key))
    rollout, frozen = world.status.rollout, world.resolution.frozen
    if rollout and rollout.stage == Stage.RESOLVING and frozen is not None:
        number = max((r.number for r in world.revisions.values()), default=0) + 1
        yield Create(controller_revision(world.owner, world.resolution.revision, number, dict(frozen)))
    for revision in world.revisions.values():
        notes = {**_digest_note(revision), **_outcome_note(world, revision)}
        current = revision.live["metadata"].get("annotations") or {}
        if any(current.get(key) != value for key, value in notes.items()):
            yield Annotate(ref_of(revision.live), notes, fence_of(revision.live))


def _digest_note(revision: Revision) -> dict[str, str]:
    seen = sorted({p.digest for p in revision.pods if p.digest})
    if revision.digest or len(seen) != 1:
        return {}
    return {observe.ANNOTATION_DIGEST: seen[0]}


def _outcome_note(world: World, revision: Revision) -> dict[str, str]:
    entry = next((h for h in world.status.history if h.revision == revision.name), None)
    if entry is None or entry.outcome is None or entry.at is None:
        return {}
    refused = next((r for r in world.status.rejected if r.revision == revision.name), None)
    message = refused.message if refused and entry.outcome in (Outcome.REJECTED, Outcome.ROLLED_BACK) else ""
    return {
        observe.ANNOTATION_OUTCOME: entry.outcome,
        observe.ANNOTATION_REASON: entry.reason or "",
        observe.ANNOTATION_MESSAGE: message or "",
        observe.ANNOTATION_AT: str(entry.at),
    }


# --- what must exist -----------------------------------------------------------------------------


def _serving(world: World) -> Iterable[Object]:
    for name, replicas in pods_wanted(world).items():
        revision = world.revisions.get(name)
        if revision is not None:
            cohort, feedback = _cohort_of(world, name), world.raw_spec.get("feedback")
            yield from manifests.of_revision(world.owner, revision, replicas, feedback, cohort)


def _cohort_of(world: World, revision: str) -> str | None:
    """The rollout whose labels a revision's pods count: for the canary from the start, since nobody asks it yet."""
    rollout = world.status.rollout
    told = _is_canary(world, revision) or (_is_stable(world, revision) and s.stable_compares_labels(world))
    return rollout.id if rollout and told else None


def _routing(world: World) -> Iterable[Object]:
    split = split_of(world)
    known = world.revisions.get(split.stable or split.canary or "")
    if known is None:
        return
    ports = known.data["ports"]
    yield from s.strategy(world).router.manifests(world.owner, split, ports)
    yield from manifests.aliases(world.owner, split, ports)


def wanted_refs(world: World) -> list[Ref]:
    """The names we are about to use: none of them may belong to somebody else."""
    refs = [ref_of(m) for m in (*_serving(world), *_routing(world))]
    if world.resolution.revision:
        refs += manifests.refs_of_revision(world.owner, world.resolution.revision)
    return refs


def _applies(wanted: Iterable[Object], live: Live) -> Iterable[Action]:
    for manifest in wanted:
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
        found = live.get(ref_of(manifest))
        notes = ((found or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_APPLIED)
        if found is not None and notes == digest and same(manifest, found):
            continue
        marked = {**manifest, "metadata": {**manifest["metadata"], "annotations": {
            **manifest["metadata"].get("annotations", {}), ANNOTATION_APPLIED: digest,
        }}}  # fmt: skip
        yield Apply(marked, fence_of(found))


def _cohorts(world: World) -> Iterable[Action]:
    """A running pod would see its changed ConfigMap a minute late; an annotation makes its kubelet look at once.

    Once all of stable's have it the canary gets its first weight: what remains is the second or two until the kubelet
    has written and the server has read it. Pods of the canary need no push, since their ConfigMap had the cohort before
    they started; those that are older than the rollout (the status was lost, or the revision came back before its pods
    were gone) do.
    """
    rollout = world.status.rollout
    if rollout is None or rollout.stage in (None, Stage.RESOLVING) or not rollout.id or world.stable is None:
        return
    began = rollout.started_at.unix() if rollout.started_at else 0.0
    # pods are dated in whole seconds
    older = [pod for pod in (world.canary.pods if world.canary else ()) if pod.created_at + 1 <= began]
    told = world.stable.pods if s.stable_compares_labels(world) else ()
    for pod in (*told, *older):
        if pod.cohort != rollout.id and pod.ready:
            yield Annotate(ref_of(pod.live), {observe.ANNOTATION_COHORT: rollout.id}, fence_of(pod.live))


# --- what may go ---------------------------------------------------------------------------------


def _removals(world: World, live: Live) -> Iterable[Action]:
    """Pods of revisions that are in no role, once the route as observed no longer names them."""
    wanted = pods_wanted(world)
    for obj in live.objects:
        revision = obj["metadata"].get("labels", {}).get(LABEL_REVISION)
        if obj["kind"] not in manifests.REVISION_KINDS or not revision or revision in wanted:
            continue
        if _is_canary(world, revision) or (world.traffic.weights.get(revision) and not s.nothing_is_to_serve(world)):
            continue
        if observe.is_ours(world.owner, obj):
            yield Delete(ref_of(obj), fence_of(obj))
    yield from _stray_routes(world, live)
    yield from _old_records(world)


def _is_canary(world: World, revision: str) -> bool:
    return world.status.canary is not None and world.status.canary.revision == revision


def _is_stable(world: World, revision: str) -> bool:
    return world.status.stable is not None and world.status.stable.revision == revision


def _stray_routes(world: World, live: Live) -> Iterable[Action]:
    """The canary's alias without a canary, the HTTPRoute of a router no longer used; all where nothing is to serve.

    Where a revision is to serve and its record is gone nobody knows what is wanted, and all of it stays.
    """
    wanted = {ref_of(m) for m in _routing(world)}
    if not wanted and not s.nothing_is_to_serve(world):
        return
    for ref in manifests.route_refs(world.owner):
        found = live.get(ref)
        if found is not None and ref not in wanted and observe.is_ours(world.owner, found):
            yield Delete(ref, fence_of(found))


def _old_records(world: World) -> Iterable[Action]:
    """Records beyond `revisionHistoryLimit`; never one in use, last healthy, or named by the spec."""
    status = world.status
    kept = {*pods_wanted(world), world.resolution.revision, *(r.revision for r in status.retiring)}
    kept |= {r.revision for r in (status.stable, status.canary, status.last_healthy) if r}
    spare = sorted((r for r in world.revisions.values() if r.name not in kept), key=lambda r: -r.number)
    for revision in spare[world.spec.rollout.revision_history_limit :]:
        yield Delete(ref_of(revision.live), fence_of(revision.live))


def describe(action: Action) -> str:
    """For logs."""
    match action:
        case Create(manifest) | Apply(manifest, _):
            return f"{type(action).__name__} {ref_of(manifest)}"
        case Annotate(ref, notes, _):
            return f"Annotate {ref}: {', '.join(sorted(notes))}"
        case Delete(ref, _):
            return f"Delete {ref}"
