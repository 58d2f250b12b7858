"""What stays when the story is over: the table, the plot, and how to go on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from e2e.cluster.console import Problem
from e2e.cluster.kube import kubectl
from e2e.cluster.places import CACHE, kubeconfig
from e2e.demo.journal import Journal
from e2e.demo.kube import GET_SECONDS
from e2e.demo.result import Result
from e2e.demo.settings import DEMO_CACHE, DEMO_LOGS, MODEL, NAMESPACE, OPERATOR_NAMESPACE


def console() -> Console:
    """A terminal as wide as it is; wide enough for the table where there is none."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=140)


def table(results: Sequence[Result]) -> Table:
    """The eight outcomes as far as they were reached."""
    out = Table(title="What was seen in the cluster's own objects", title_justify="left", show_lines=False)
    out.add_column("", justify="right")
    out.add_column("chapter", max_width=44)
    out.add_column("seen", justify="center")
    out.add_column("time", justify="right")
    out.add_column("outcome", max_width=70)
    for result in results:
        mark = "[green]yes[/]" if result.seen else "[red]NO[/]"
        out.add_row(str(result.number), result.title, mark, f"{result.seconds:.0f} s", result.told)
    return out


def traffic(report: Mapping[str, Any]) -> str:
    """The load generator's own count in one line."""
    if not report:
        return "no traffic was sent"
    unsent = report["failures"].get("unsent", 0)
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["failures"].items() if kind != "unsent")
    failed = f"{report['failed'] - unsent} failed" + (f" ({kinds})" if kinds else "")
    failed += f", {unsent:,} not sent: this machine was too busy" if unsent else ""
    feedback = report["feedback"]
    lost = sum(count for kind, count in feedback.items() if kind != "accepted" and not kind.startswith("failed posts"))
    labels = f"{feedback.get('accepted', 0):,} labels taken" + (f", {lost:,} not" if lost else "")
    return f"{report['sent']:,} requests, {failed}; {labels}"


def how_to_go_on() -> str:
    """Commands to look around, to go on by hand, and to end it."""
    manifests = DEMO_CACHE / "manifests"
    return f"""\
Look around:
  export KUBECONFIG={kubeconfig()} PATH={CACHE / "bin"}:$PATH
  kubectl get mdep -A
  kubectl describe mdep -n {NAMESPACE} {MODEL}
  kubectl get mdan -n {NAMESPACE}                 # the evidence behind every decision
Go on by hand:
  kubectl get mdep -n {NAMESPACE} -w              # in a second terminal
  kubectl apply -n {NAMESPACE} -f {manifests / f"{MODEL}-v2.yaml"}
  kubectl apply -n {NAMESPACE} -f examples/iris/modeldeployment.yaml      # the smallest one: five lines
  e2e/demo/traffic                          # requests and labels, as in the story; Ctrl-C ends them
End it:
  make down"""


def show(console: Console, results: Sequence[Result], report: Mapping[str, Any], plot: str) -> None:
    """Print the table, the count, and how to go on."""
    console.print(table(results))
    console.print(f"Load generator: {traffic(report)}", highlight=False)
    console.print(f"Weight, accuracy and latency over time: {plot}", highlight=False)
    console.print()
    console.print(how_to_go_on(), highlight=False, markup=False, soft_wrap=True)


def keep_evidence(journal: Journal, results: Sequence[Result]) -> Path:
    """Write what helps to understand a failure into a folder of its own; the folder."""
    folder = DEMO_LOGS / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    with journal.news:
        seen = [{"at": s.at, "model": s.model, "analysis": s.analysis} for s in journal.sightings]
        record: dict[str, Any] = {"marks": [{"at": m.at, "title": m.title} for m in journal.marks]}
        record |= {"sightings": seen, "seconds": journal.seconds, "totals": journal.totals}
    (folder / "journal.json").write_text(json.dumps(record))
    (folder / "results.txt").write_text("\n".join(map(str, results)) + "\n")
    commands = {
        "describe.txt": ("describe", "modeldeployments,pods,deployments,httproutes", "--namespace", NAMESPACE),
        "objects.yaml": (
            *("get", "modeldeployments,rolloutanalyses,deployments,httproutes,controllerrevisions,pods"),
            *("--namespace", NAMESPACE, "--output=yaml"),
        ),
        "events.txt": ("get", "events", "--namespace", NAMESPACE, "--sort-by=.lastTimestamp"),
        "operator.log": (
            *("logs", "--namespace", OPERATOR_NAMESPACE, "--selector=app.kubernetes.io/name=penstock"),
            "--tail=5000",
        ),
    }
    for name, words in commands.items():
        with contextlib.suppress(Problem, subprocess.SubprocessError):
            (folder / name).write_text(kubectl(*words, timeout=4 * GET_SECONDS))
    return folder
