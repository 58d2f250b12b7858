"""Recovery: what is known when the status is gone, read off the children.

Empty status plus revisions is never a first deployment. What each revision came to was written to its record before
traffic moved, so: stable is the one last promoted, refused stays refused, and a canary in flight begins anew at 0 %.
Where records and route contradict each other, nothing moves and a human is told.
"""

from __future__ import annotations

from penstock.api.base import Timestamp
from penstock.api.conditions import Reason
from penstock.api.status import (
    HISTORY_LIMIT,
    HistoryEntry,
    LastHealthy,
    Outcome,
    Rejection,
    Retiring,
    RevisionStatus,
    Status,
    TrafficStatus,
)
from penstock.core.moves import Move
from penstock.core.world import Revision, World

REFUSED = frozenset({Outcome.ROLLED_BACK, Outcome.REJECTED})


def candidate(world: World) -> Revision | None:
    """The revision that must be stable; None where none was ever promoted."""
    promoted = [r for r in world.revisions.values() if r.outcome == Outcome.PROMOTED]
    return max(promoted, key=lambda r: (r.outcome_at, r.number), default=None)


def routed(world: World) -> dict[str, int]:
    """Percent by revision as the live route says, of revisions that still have a record."""
    return {name: weight for name, weight in world.traffic.weights.items() if weight and name in world.revisions}


def is_possible(world: World) -> bool:
    """Records and route tell one story: the one last promoted gets requests, or there is no route to ask."""
    stable, weights = candidate(world), routed(world)
    if stable is None:
        return not weights and any(r.outcome for r in world.revisions.values())
    return not weights or stable.name in weights


def recover(world: World) -> Move:
    """A status that says what the children prove, and no more."""
    stable = candidate(world)
    refused = [r for r in world.revisions.values() if r.outcome in REFUSED]
    until = Timestamp.at(world.now + world.settings.retire_seconds)
    ended = [r for r in world.revisions.values() if r.outcome]
    status = Status(
        seq=0,
        stable=_stable(stable) if stable else None,
        last_healthy=LastHealthy(revision=stable.name) if stable else None,
        traffic=TrafficStatus(desired_weight=0, applied_weight=0),
        retiring=tuple(
            Retiring(revision=name, until=until, routed=True)
            for name in sorted(routed(world))
            if stable is not None and name != stable.name
        ),
        rejected=tuple(
            Rejection(
                spec_hash=r.spec_hash,
                revision=r.name,
                reason=r.outcome_reason,
                message=r.outcome_message,
                at=Timestamp.at(r.outcome_at),
            )
            for r in sorted(refused, key=lambda r: -r.outcome_at)
        ),
        history=tuple(
            HistoryEntry(
                revision=r.name,
                digest=r.digest,
                outcome=Outcome(r.outcome) if r.outcome else None,
                reason=r.outcome_reason,
                at=Timestamp.at(r.outcome_at),
            )
            for r in sorted(ended, key=lambda r: -r.outcome_at)
        )[:HISTORY_LIMIT],
    )
    who = f"stable is {stable.name}" if stable else "no revision was ever promoted"
    return Move(
        status,
        Reason.RECOVERED,
        f"the status was lost and is recovered from the records: {who}, {len(refused)} refused",
    )


def _stable(revision: Revision) -> RevisionStatus:
    return RevisionStatus(
        revision=revision.name, spec_hash=revision.spec_hash, uri=revision.uri, digest=revision.digest
    )
