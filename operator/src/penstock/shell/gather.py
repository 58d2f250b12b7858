"""Gathers one World: a dozen live reads, no decision."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from penstock.api.modeldeployment import Spec
from penstock.api.status import Stage, Status
from penstock.core import names, observe, plan, render, schema
from penstock.core import situations as s
from penstock.core.objects import (
    CLUSTER_MODEL_RUNTIME,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    GROUP,
    HTTP_ROUTE,
    LABEL_MODEL,
    MODEL_DEPLOYMENT,
    POD,
    ROLLOUT_ANALYSIS,
    SECRET,
    SERVICE,
    Object,
    Ref,
    ref_of,
)
from penstock.core.routing import router_for
from penstock.core.world import Resolution, Revision, Settings, Traffic, World
from penstock.ports import Cluster, Inspector, PodTarget, ProbeFailed

CHILDREN = (DEPLOYMENT, SERVICE, CONFIG_MAP, HTTP_ROUTE)
KINDS = (*CHILDREN, CONTROLLER_REVISION, POD, ROLLOUT_ANALYSIS)
LABEL_USABLE = f"{GROUP}/usable"


@dataclass(frozen=True, slots=True)
class Gathered:
    """A World with the raw objects it was made of."""

    live: Object
    objects: plan.Live
    analyses: Sequence[Object]
    world: World


async def gather(
    cluster: Cluster, inspector: Inspector, key: tuple[str, str], settings: Settings, now: float
) -> Gathered | None:
    """Reads all of one ModelDeployment; None if it is gone or going (its children go by their owner)."""
    namespace, name = key
    live = await cluster.get(Ref(MODEL_DEPLOYMENT, namespace, name))
    if live is None or live["metadata"].get("deletionTimestamp"):
        return None
    owner = render.Owner(name, namespace, live["metadata"]["uid"])
    labels = {LABEL_MODEL: name}
    found = await asyncio.gather(*(cluster.list(kind, namespace, labels) for kind in KINDS))
    secret = await cluster.get(Ref(SECRET, namespace, names.feedback_key(name)))
    lists = dict(zip(KINDS, found, strict=True))
    records, pods, analyses = lists[CONTROLLER_REVISION], lists[POD], lists[ROLLOUT_ANALYSIS]
    children = [obj for kind in CHILDREN for obj in lists[kind]]
    revisions = observe.revisions([r for r in records if observe.is_ours(owner, r)], pods)
    spec, status, invalid = _parse(live)
    resolution = invalid or await _resolve(cluster, owner, live["spec"], revisions, settings)
    world = World(
        owner=owner,
        generation=int(live["metadata"].get("generation", 0)),
        spec=spec,
        raw_spec=live["spec"],
        status=status,
        revisions=revisions,
        resolution=resolution,
        traffic=Traffic({}, confirmed=False),
        conflict=None,
        schema=None,
        schema_problem="",
        measurement=None,
        analyses=observe.attempts(analyses),
        settings=settings,
        now=now,
        new_key=base64.b64encode(os.urandom(32)).decode() if secret is None else None,
    )
    world = await _complete(cluster, inspector, world, children)
    return Gathered(live, plan.Live(children), analyses, world)


def _parse(live: Object) -> tuple[Spec, Status, Resolution | None]:
    """Spec and status as models. A spec that cannot be read changes nothing: it resolves to a reason."""
    status = Status.from_wire(live.get("status"))
    try:
        return Spec.from_wire(live["spec"]), status, None
    except ValidationError as error:
        where = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        uri = str((live["spec"].get("model") or {}).get("uri") or "http://invalid")
        return (
            Spec.from_wire({"model": {"uri": uri}}),
            status,
            Resolution("", reason="InvalidSpec", message=where),
        )


async def _resolve(
    cluster: Cluster,
    owner: render.Owner,
    spec: Mapping[str, Any],
    known: Mapping[str, Revision],
    settings: Settings,
) -> Resolution:
    """The revision that the spec asks for: one that exists, or one to be rendered now."""
    hash_ = names.spec_hash(spec)
    revision, exists = observe.resolve_name(hash_, known)
    if exists:
        return Resolution(hash_, revision)
    try:
        await _check_secrets(cluster, owner, spec)
        runtime = render.choose_runtime(spec, await cluster.list(CLUSTER_MODEL_RUNTIME, "", {}))
        frozen = render.freeze(owner, spec, runtime, settings.agent_image, revision)
    except render.Unrenderable as error:
        return Resolution(hash_, revision, reason=error.reason, message=str(error))
    return Resolution(hash_, revision, frozen)


async def _check_secrets(cluster: Cluster, owner: render.Owner, spec: Mapping[str, Any]) -> None:
    """A Secret must be offered by its owner, else whoever may write specs could borrow any of the namespace."""
    for field, name in render.secrets_named(spec):
        secret = await cluster.get(Ref(SECRET, owner.namespace, name))
        where = f"{field}: Secret {owner.namespace}/{name}"
        if secret is None:
            raise render.Unrenderable("SecretNotUsable", f"{where} does not exist")
        if (secret["metadata"].get("labels") or {}).get(LABEL_USABLE) != "true":
            raise render.Unrenderable(
                "SecretNotUsable",
                f'{where} is not offered to models: its owner must label it {LABEL_USABLE}: "true"',
            )


async def _complete(cluster: Cluster, inspector: Inspector, world: World, children: list[Object]) -> World:
    """The facts that need the first ones: traffic as it is, foreign objects, and schemas while loading."""
    ours = [c for c in children if observe.is_ours(world.owner, c)]
    router = router_for(world.spec.traffic)
    world = replace(world, traffic=router.observe(plan.split_of(world), ours, world.revisions))
    missing = [ref for ref in plan.wanted_refs(world) if ref not in {ref_of(c) for c in children}]
    strangers = [obj for obj in await asyncio.gather(*(cluster.get(ref) for ref in missing)) if obj is not None]
    conflict = observe.foreign(world.owner, plan.wanted_refs(world), [*children, *strangers])
    world = replace(world, conflict=conflict)
    if s.is_rolling(world) and s.rollout_of(world).stage == Stage.LOADING and s.canary_is_ready(world):
        difference, problem = await _compare_schemas(inspector, world)
        world = replace(world, schema=difference, schema_problem=problem)
    return world


async def _compare_schemas(inspector: Inspector, world: World) -> tuple[schema.Difference | None, str]:
    """Canary's inputs and outputs against stable's, each asked of one ready pod."""
    pods = [next((p for p in r.pods if p.ready), None) if r else None for r in (world.stable, world.canary)]
    if world.stable is None:
        return None, ""
    stable, canary = pods
    if stable is None or canary is None:
        return None, "the schemas cannot be compared: stable has no ready pod"
    try:
        old, new = [
            schema.parse(await inspector.metadata(PodTarget(p.name, p.ip, p.revision, p.ports), world.owner.name))
            for p in (stable, canary)
        ]
    except (ProbeFailed, ValueError) as error:
        return None, f"the schemas cannot be compared: {error}"
    return schema.compare(old, new), ""
