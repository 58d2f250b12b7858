"""What one reconcile sees: every fact a decision may rest on, gathered once, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.api.modeldeployment import Spec
from penstock.api.status import Status
from penstock.core.gates.evidence import Evidence, GateJudgement, Plan
from penstock.core.objects import Object, Ref
from penstock.core.render import Owner
from penstock.core.schema import Difference


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod's model does not run. `final` means that trying again cannot help."""

    reason: str
    message: str
    final: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """One model pod, reduced to what decisions need."""

    name: str
    revision: str
    ip: str
    ports: Mapping[str, int]
    created_at: float
    ready_since: float | None
    unready_since: float | None
    restarts: int
    failure: Failure | None
    unschedulable: str | None
    digest: str | None
    cohort: str | None
    deleting: bool
    live: Object = field(repr=False, hash=False, compare=False)

    @property
    def ready(self) -> bool:
        """Serving now."""
        return self.ready_since is not None and not self.deleting


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision that was rendered once, with whatever runs of it."""

    name: str
    spec_hash: str
    data: Mapping[str, Any]
    number: int
    digest: str | None
    outcome: str | None
    outcome_reason: str
    outcome_message: str
    outcome_at: float
    pods: tuple[Pod, ...]
    live: Object = field(repr=False, hash=False, compare=False)

    @property
    def ready(self) -> int:
        """Pods that serve now."""
        return sum(pod.ready for pod in self.pods)

    @property
    def failure(self) -> Failure | None:
        """The first failure of its pods, a final one before others."""
        failures = sorted((p.failure for p in self.pods if p.failure and not p.deleting), key=lambda f: not f.final)
        return failures[0] if failures else None

    @property
    def unschedulable(self) -> str | None:
        """The scheduler's own words, if a pod finds no node."""
        return next((p.unschedulable for p in self.pods if p.unschedulable), None)

    @property
    def trouble(self) -> str:
        """What keeps its pods from serving, in the cluster's own words; empty where nothing is known to."""
        if self.unschedulable:
            return f"Unschedulable: {self.unschedulable}"
        return f"{self.failure.reason}: {self.failure.message}" if self.failure else ""

    @property
    def uri(self) -> str:
        """Where its model comes from."""
        return str(self.data["model"]["uri"])


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where requests go now, as the live route or Service says."""

    weights: Mapping[str, int]
    """Percent per revision; empty where no route exists yet."""
    confirmed: bool
    """The router has taken over exactly what was last written."""
    problem: str = ""
    """Why not, for people."""
    generation: int = 0
    broken: bool = False
    """More than a moment's delay: no gateway has taken the route up, or one has found it wrong."""
    refused: bool = False
    """A gateway has said no: nothing changes until the route or the gateway does."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the spec asks for, as a revision."""

    spec_hash: str
    revision: str = ""
    frozen: Mapping[str, Any] | None = None
    """Data of a ControllerRevision that is still to be created; None once it exists."""
    reason: str = ""
    message: str = ""
    """Why the spec cannot become a revision, if it cannot."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the running analysis knows, after the samples of this reconcile."""

    plan: Plan
    evidence: Evidence
    judgements: tuple[GateJudgement, ...]
    verdict: str
    message: str
    gate: str | None
    """The gate that decides, or that is waited for."""
    name: str
    seq: int
    blind: bool
    fresh_requests: int = 0
    """Requests the canary answered since its weight last changed."""
    observed_weight: float | None = None
    """Percent of those requests that the canary got."""
    share_is_right: bool = True
    """Whether that is compatible with the weight applied."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The admin's settings that decisions depend on."""

    agent_image: str
    scrape_seconds: float = 15
    retire_seconds: float = 30
    """How long pods outlive the moment when the route no longer names them."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything `rollout.step` may look at."""

    owner: Owner
    generation: int
    spec: Spec
    raw_spec: Mapping[str, Any]
    status: Status
    revisions: Mapping[str, Revision]
    resolution: Resolution
    traffic: Traffic
    conflict: Ref | None
    """An object with one of our names that is not ours."""
    schema: Difference | None
    """Canary against stable, once both told theirs."""
    schema_problem: str
    measurement: Measurement | None
    analyses: Mapping[str, int]
    """Attempts made so far, by revision."""
    settings: Settings
    now: float
    new_key: str | None = None
    """Random bytes, base64, for a feedback key that does not exist yet; None once it does."""

    @property
    def stable(self) -> Revision | None:
        """The revision that is trusted."""
        return self.revisions.get(self.status.stable.revision or "") if self.status.stable else None

    @property
    def canary(self) -> Revision | None:
        """The revision under trial."""
        return self.revisions.get(self.status.canary.revision or "") if self.status.canary else None
