"""Writes docs/reference/rollout-machine.md from the machine's own table, so that the page cannot lie.

`python dev/diagram.py` writes it, `--check` fails where it is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from penstock.core.rollout import RULES, Rule

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "rollout-machine.md"
STAGES = ("Idle", "Resolving", "Loading", "Stepping", "Promoting")


def stages_of(rule: Rule) -> list[str]:
    """Names of the stages a rule is read in, in order; at rest there is no stage."""
    names = {"Idle" if stage is None else stage.value for stage in rule.during}
    return [name for name in STAGES if name in names]


def diagram() -> str:
    """A Mermaid state diagram: one arrow for each stage a rule leads away from."""
    lines = ["stateDiagram-v2", "    [*] --> Idle"]
    for rule in RULES:
        if rule.then is None or not rule.leads_to:
            continue
        lines += [f"    {stage} --> {rule.leads_to}: {rule.name}" for stage in stages_of(rule)]
    return "\n".join(lines)


def table() -> str:
    """The rules in the order in which they are read."""
    rows = ["| # | rule | read while | when | then |", "|---|---|---|---|---|"]
    for number, rule in enumerate(RULES, 1):
        when = ", ".join(w.__name__.replace("_", " ") for w in rule.when)
        then = rule.then.__name__.replace("_", " ") if rule.then else "nothing may move"
        rows.append(f"| {number} | {rule.name} | {', '.join(stages_of(rule))} | {when} | {then} |")
    return "\n".join(rows)


def page() -> str:
    """The whole page."""
    return (
        "# The rollout machine\n\n"
        "Generated from the table in `operator/src/penstock/core/rollout.py`; do not edit.\n\n"
        "At each reconcile the rules are read from top to bottom, and the first one that applies makes the only move. "
        "The move changes the status, which is written before anything else is done; what the cluster must look like "
        "follows from the status alone.\n\n"
        f"```mermaid\n{diagram()}\n```\n\n{table()}\n"
    )


def main() -> int:
    """Write or check the page."""
    if "--check" in sys.argv[1:]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE} is out of date: run `make generate`", file=sys.stderr)  # noqa: T201
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
