"""What gateways say of an HTTPRoute: whether each one that it names has taken over its present generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.core.objects import HTTP_ROUTE, Object

NEEDED = ("Accepted", "ResolvedRefs")


@dataclass(frozen=True, slots=True)
class Answer:
    """What all of them together say."""

    problem: str = ""
    """Why requests do not go as the route says, for people; empty: they do."""
    broken: bool = False
    """More than the moment that a gateway takes: none has taken the route up, or one has found it wrong."""
    refused: bool = False
    """A gateway has said no to this very generation: nothing changes until the route or the gateway does."""


def answer(route: Object) -> Answer:
    """The first thing that is wrong. Gateways that the route does not name any more have no say.

    A controller that was uninstalled leaves its entry behind, and so may one that no longer feels responsible: what
    counts is that some controller has accepted each parent.
    """
    said = (route.get("status") or {}).get("parents") or []
    for wanted in route["spec"].get("parentRefs") or ():
        fitting = [entry for entry in said if _address(entry["parentRef"], route) == _address(wanted, route)]
        found = _of_one(wanted["name"], fitting, int(route["metadata"].get("generation", 0)))
        if found.problem:
            return found
    return Answer()


def _address(ref: Object, route: Object) -> tuple[object, ...]:
    """A parentRef with the Gateway API's defaults filled in: writers may leave them out."""
    return (
        ref.get("group", HTTP_ROUTE.group),
        ref.get("kind") or "Gateway",
        ref.get("namespace") or route["metadata"].get("namespace", ""),
        ref["name"],
        ref.get("sectionName") or "",
        ref.get("port") or 0,
    )


def _of_one(gateway: str, entries: Sequence[Object], generation: int) -> Answer:
    if not entries:
        where = "is spec.traffic.parentRefs right and a gateway controller running?"
        return Answer(f"no gateway has taken up the HTTPRoute: {where}", broken=True)
    answers = [_of_controller(gateway, entry, generation) for entry in entries]
    # One that accepts is enough; else a refusal tells more than silence.
    return min(answers, key=lambda a: (bool(a.problem), not a.refused, not a.broken))


def _of_controller(gateway: str, entry: Object, generation: int) -> Answer:
    conditions = {c["type"]: c for c in entry.get("conditions") or ()}
    for type_ in NEEDED:
        condition = conditions.get(type_)
        if condition is None or int(condition.get("observedGeneration", 0)) < generation:
            return Answer(f"gateway {gateway} has not yet taken over generation {generation} of the HTTPRoute")
        if condition["status"] != "True":
            words = f"{condition.get('reason')}: {condition.get('message', '')}"
            return Answer(
                f"gateway {gateway}: {type_} is {condition['status']} ({words})",
                broken=True,
                refused=type_ == "Accepted" and condition["status"] == "False",
            )
    return Answer()
