"""The rollout machine. Everything that decides a transition is in RULES, read from top to bottom.

A rule applies `during` some stages, `when` a situation holds; the first that applies makes the one move of this
reconcile. A move only changes the status: what the cluster must look like follows from the status (`plan`), so a
crash after any write loses nothing. Situations are sentences in `situations`, moves are in `moves`; the diagram in
the docs is drawn from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from penstock.api.status import Stage
from penstock.core import clocks, moves, reach, recovery
from penstock.core import situations as s
from penstock.core.moves import Move, Then
from penstock.core.plan import split_of
from penstock.core.world import Traffic, World

When: TypeAlias = Callable[[World], bool]

IDLE: frozenset[Stage | None] = frozenset({None})
RESOLVING: frozenset[Stage | None] = frozenset({Stage.RESOLVING})
LOADING: frozenset[Stage | None] = frozenset({Stage.LOADING})
STEPPING: frozenset[Stage | None] = frozenset({Stage.STEPPING})
PROMOTING: frozenset[Stage | None] = frozenset({Stage.PROMOTING})
EXPOSED = STEPPING | PROMOTING
ROLLING = RESOLVING | LOADING | EXPOSED
ANY = IDLE | ROLLING


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the machine. `then` None means: nothing may move while this holds."""

    name: str
    during: frozenset[Stage | None]
    when: tuple[When, ...]
    then: Then | None
    leads_to: str = ""
    """Where it ends, for the diagram."""

    def applies(self, world: World) -> bool:
        """In one of its stages, and every situation holds."""
        return stage_of(world) in self.during and all(when(world) for when in self.when)


RULES: tuple[Rule, ...] = (
    # what must be known before anything may move
    Rule("spec cannot be read", ANY, (s.spec_is_unreadable,), None),
    Rule("status was lost", IDLE, (s.status_was_lost, recovery.is_possible), recovery.recover, "Idle"),
    Rule("status was lost, and nobody can tell", IDLE, (s.status_was_lost,), None),
    Rule("names are taken", ANY, (s.names_are_taken,), None),
    # time passes, whatever else happens
    Rule("a revision retires", ANY, (s.something_retires,), moves.retire, ""),
    # the user changed their mind
    Rule("spec names stable again", ROLLING, (s.spec_names_stable_again,), moves.cancel, "Idle"),
    Rule("spec names a third revision", ROLLING, (s.spec_names_a_third,), moves.supersede, "Idle"),
    # trouble: only this moves traffic back
    Rule("stable is down too", EXPOSED, (s.a_gate_failed, s.stable_is_down), None),
    Rule("canary is broken", EXPOSED, (s.canary_is_broken, s.has_a_way_back), moves.roll_back_broken, "Idle"),
    Rule("a gate failed", EXPOSED, (s.a_gate_failed,), moves.roll_back_by_gate, "Idle"),
    Rule("pods saw different bytes", ROLLING, (s.digests_differ,), moves.reject_changed_source, "Idle"),
    Rule("model cannot be loaded", LOADING, (s.cannot_load,), moves.reject_unloadable, "Idle"),
    Rule("not ready in time", LOADING, (s.takes_too_long,), moves.reject_late, "Idle"),
    Rule(
        "schema breaks clients",
        LOADING,
        (s.canary_is_ready, s.schema_breaks_clients),
        moves.reject_schema,
        "Idle",
    ),
    Rule("weight cannot be made any more", EXPOSED, (reach.weight_is_out_of_reach,), reach.withdraw, ""),
    Rule("a third is in the way", LOADING | STEPPING, (reach.a_third_is_in_the_way,), reach.clear_the_way, ""),
    # nothing moves forward without consent and sight
    Rule("a human begins to hold it", ROLLING, (s.hold_begins,), clocks.note_hold, ""),
    Rule("nobody holds it any more", ROLLING, (s.hold_is_over,), clocks.note_going_on, ""),
    Rule("paused by the user", ROLLING, (s.is_paused,), None),
    Rule("scaled to zero", ROLLING, (s.is_suspended,), None),
    Rule("went blind", STEPPING, (s.went_blind,), clocks.note_blindness, "Stepping"),
    Rule("sees again", STEPPING, (s.sees_again,), clocks.note_sight, "Stepping"),
    Rule("undecided for too long", STEPPING, (s.is_overdue,), moves.decide_late, "Idle"),
    # forward
    Rule("revision is rendered", RESOLVING, (s.is_rendered,), moves.load, "Loading"),
    Rule("canary is ready", LOADING, (s.canary_is_ready, s.schema_is_known), moves.expose, "Stepping"),
    Rule("steps were edited", STEPPING, (s.steps_were_edited,), moves.renumber, "Stepping"),
    Rule("pods for the weight are there", EXPOSED, (s.weight_is_due,), moves.apply_weight, ""),
    Rule("weight acts", STEPPING, (s.step_took_effect,), moves.start_clock, ""),
    Rule("blind: nothing moves forward", STEPPING, (s.is_blind,), None),
    Rule("step is done", STEPPING, (s.step_is_done,), moves.advance, "Stepping"),
    Rule("all traffic moved", PROMOTING, (s.all_traffic_moved, s.canary_is_ready), moves.promote, "Idle"),
    # at rest
    Rule("paused before it began", IDLE, (s.is_paused,), None),
    Rule(
        "spec asks for something new",
        IDLE,
        (s.asks_for_something_new, s.traffic_rests),
        moves.start,
        "Resolving",
    ),
)


def stage_of(world: World) -> Stage | None:
    """Where the machine is; None at rest."""
    return world.status.rollout.stage if world.status.rollout is not None else None


def decide(world: World) -> tuple[Rule | None, Move | None]:
    """The first rule that applies, and its move. (rule, None) where a rule says that nothing may move."""
    for rule in RULES:
        if rule.applies(world):
            return rule, rule.then(world) if rule.then else None
    return None, None


def after(world: World, move: Move | None) -> World:
    """What is told and made from now on. Nobody has seen a split act that the move has only just asked for."""
    if move is None:
        return world
    moved = replace(world, status=move.status)
    if split_of(moved).shares() == split_of(world).shares():
        return moved
    return replace(moved, traffic=Traffic(world.traffic.weights, confirmed=False, problem="the route is changing"))
