"""Reads live objects: raw JSON in, the facts of `world` out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from penstock.core import names
from penstock.core.objects import GROUP, LABEL_REVISION, Object, Ref, ref_of
from penstock.core.render import FETCH_CONTAINER, Owner
from penstock.core.world import Failure, Pod, Revision

ANNOTATION_DIGEST = f"{GROUP}/digest"
ANNOTATION_OUTCOME = f"{GROUP}/outcome"
ANNOTATION_REASON = f"{GROUP}/outcome-reason"
ANNOTATION_MESSAGE = f"{GROUP}/outcome-message"
ANNOTATION_AT = f"{GROUP}/outcome-at"
ANNOTATION_COHORT = f"{GROUP}/cohort"

ENDED = frozenset({"Failed", "Succeeded"})
FINAL_FETCH_REASONS = frozenset(
    {"ModelNotFound", "AccessDenied", "DigestMismatch", "SourceChanged", "InvalidModel", "UnsupportedSource"}
)
_IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError"})


def timestamp(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; 0 where there is none."""
    if not text:
        return 0.0
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def rfc3339(at: float) -> str:
    """Whole seconds in UTC, as Kubernetes writes metav1.Time."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def revisions(records: Iterable[Object], pods: Iterable[Object]) -> dict[str, Revision]:
    """All revisions that were ever rendered and are still remembered, by name."""
    by_revision: dict[str, list[Pod]] = {}
    for live in pods:
        if (live.get("status") or {}).get("phase") in ENDED:
            continue  # evicted, or its node went: another one stands in for it
        pod = parse_pod(live)
        by_revision.setdefault(pod.revision, []).append(pod)
    found = {}
    for record in records:
        name = record["metadata"]["labels"][LABEL_REVISION]
        found[name] = _revision(record, tuple(by_revision.get(name, ())))
    return found


def _revision(record: Object, pods: tuple[Pod, ...]) -> Revision:
    meta = record["metadata"]
    notes = meta.get("annotations") or {}
    data = record["data"]
    return Revision(
        name=meta["labels"][LABEL_REVISION],
        spec_hash=data["specHash"],
        data=data,
        number=int(record.get("revision", 0)),
        digest=notes.get(ANNOTATION_DIGEST),
        outcome=notes.get(ANNOTATION_OUTCOME),
        outcome_reason=notes.get(ANNOTATION_REASON, ""),
        outcome_message=notes.get(ANNOTATION_MESSAGE, ""),
        outcome_at=timestamp(notes.get(ANNOTATION_AT)),
        pods=tuple(sorted(pods, key=lambda p: p.name)),
        live=record,
    )


def parse_pod(live: Object) -> Pod:
    """One pod of ours."""
    meta, status = live["metadata"], live.get("status") or {}
    ports = {
        p["name"]: int(p["containerPort"])
        for c in live["spec"].get("containers", ())
        for p in c.get("ports", ())
        if p.get("name")
    }
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return Pod(
        name=meta["name"],
        revision=(meta.get("labels") or {}).get(LABEL_REVISION, ""),
        ip=status.get("podIP", ""),
        ports=ports,
        created_at=timestamp(meta.get("creationTimestamp")),
        ready_since=_condition_since(status, "Ready", "True"),
        unready_since=_condition_since(status, "Ready", "False"),
        restarts=sum(int(s.get("restartCount", 0)) for s in status.get("containerStatuses") or ()),
        failure=next((f for s in statuses if (f := _failure(s))), None),
        unschedulable=_unschedulable(status),
        digest=_fetched_digest(status),
        cohort=(meta.get("annotations") or {}).get(ANNOTATION_COHORT),
        deleting=bool(meta.get("deletionTimestamp")),
        live=live,
    )


def _condition_since(status: Mapping[str, Any], type_: str, value: str) -> float | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == type_ and condition["status"] == value:
            return timestamp(condition.get("lastTransitionTime"))
    return None


def _unschedulable(status: Mapping[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", "no node fits"))
    return None


def _fetched_digest(status: Mapping[str, Any]) -> str | None:
    for container in status.get("initContainerStatuses") or ():
        if container["name"] == FETCH_CONTAINER:
            ended = (container.get("state") or {}).get("terminated") or {}
            if ended.get("exitCode") == 0:
                return _report(ended).get("digest")
    return None


def _report(ended: Mapping[str, Any]) -> dict[str, str]:
    """A container's termination message, if it is one of our JSON reports."""
    try:
        report = json.loads(ended.get("message") or "{}")
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def _failure(container: Mapping[str, Any]) -> Failure | None:
    """Why a container does not run, from its last termination or from what it waits for.

    One that runs has no failure, whatever it went through before: it may be slow, and that has a deadline.
    """
    state = container.get("state") or {}
    if state.get("running") is not None:
        return None
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if ended.get("reason") == "OOMKilled":
        limit = "raise spec.resources.limits.memory"
        return Failure("OutOfMemory", f"container {container['name']} was killed for memory; {limit}", final=False)
    if ended and ended.get("exitCode", 0) != 0:
        report = _report(ended)
        reason = report.get("reason", "")
        message = report.get("message") or (ended.get("message") or f"exit code {ended['exitCode']}").strip()
        if container["name"] == FETCH_CONTAINER:
            return Failure(reason or "ModelFetchFailed", message, final=reason in FINAL_FETCH_REASONS)
        return Failure(reason or "ModelLoadFailed", message, final=reason == "ModelLoadFailed")
    if waiting.get("reason") in _IMAGE_TROUBLE | _CONFIG_TROUBLE:
        return Failure(waiting["reason"], str(waiting.get("message", "")), final=False)
    return None


def foreign(owner: Owner, wanted: Iterable[Ref], live: Sequence[Object]) -> Ref | None:
    """The first object that has one of our names but another owner: it must never be seized."""
    by_ref = {ref_of(obj): obj for obj in live}
    for ref in wanted:
        obj = by_ref.get(ref)
        if obj is not None and not is_ours(owner, obj):
            return ref
    return None


def is_ours(owner: Owner, obj: Object) -> bool:
    """Whether the ModelDeployment is the object's controller."""
    return any(o.get("uid") == owner.uid for o in obj["metadata"].get("ownerReferences") or ())


def attempts(analyses: Iterable[Object]) -> dict[str, int]:
    """The highest attempt made so far, by revision."""
    found: dict[str, int] = {}
    for obj in analyses:
        spec = obj["spec"]
        found[spec["canary"]] = max(found.get(spec["canary"], 0), int(spec["attempt"]))
    return found


def resolve_name(hash_: str, known: Mapping[str, Revision]) -> tuple[str, bool]:
    """The revision that has this hash and whether it exists; on a collision of names, the next name."""
    for revision in known.values():
        if revision.spec_hash == hash_:
            return revision.name, True
    count = 0
    while (name := names.revision_name(hash_, count)) in known:
        count += 1
    return name, False
