"""What is left behind by a failed test for whoever looks into it: objects, events, logs, and the story over time."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.tools import tool
from e2e.tests.installation import NAMESPACE, SELECTOR
from e2e.tests.story import Story
from e2e.tests.then import OWNED, told
from e2e.tests.timeline import Timeline

COMMAND_SECONDS = 30


def folder(test: str) -> Path:
    """Where a test's traces go: E2E_LOGS, else the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(os.environ.get("E2E_LOGS") or cache / "penstock" / "e2e-logs")
    made = base / test.replace("/", "_").replace("::", ".")
    made.mkdir(parents=True, exist_ok=True)
    return made


def keep_timeline(story: Story, test: str) -> Path:
    """Write what the model's status said over time; cheap enough for tests that pass."""
    into = folder(test)
    (into / "model.txt").write_text(_told(story, story.model))
    return into


def collect(story: Story, test: str) -> Path:
    """Write everything about a story into a folder, and return that."""
    into = keep_timeline(story, test)
    seconds = int(time.monotonic() - story.began) + 5
    (into / "model.json").write_text(json.dumps([m.live for m in story.model.since(0)], indent=1))
    (into / "route.json").write_text(json.dumps([m.live for m in story.route.since(0)], indent=1))
    (into / "users.txt").write_text("".join(f"{x.tally}\n{x.tally.failures}\n" for x in story.loads))
    inside = ["--namespace", story.namespace]
    kubectl = _Kubectl(story.cluster.kubeconfig)
    kubectl.into(into / "objects.yaml", ["get", ",".join(["ModelDeployment", *OWNED]), *inside, "--output=yaml"])
    kubectl.into(into / "overview.txt", ["get", ",".join(["ModelDeployment", *OWNED]), *inside, "--output=wide"])
    kubectl.into(into / "describe.txt", ["describe", "ModelDeployment,RolloutAnalysis,Pod,HTTPRoute", *inside])
    kubectl.into(into / "events.txt", ["get", "events", *inside, "--sort-by=.lastTimestamp"])
    for pod in story.cluster.all("Pod", story.namespace):
        name = pod["metadata"]["name"]
        kubectl.into(into / f"{name}.log", ["logs", name, *inside, "--all-containers", "--prefix"])
    system = ["--namespace", NAMESPACE]
    words = [
        "logs",
        f"--selector={SELECTOR}",
        *system,
        "--all-containers",
        "--prefix",
        f"--since={seconds}s",
        "--tail=-1",
    ]
    kubectl.into(into / "operator.log", words)
    kubectl.into(into / "operator.txt", ["describe", "pod", *system])
    return into


def _told(story: Story, timeline: Timeline) -> str:
    lines = [f"{m.at - story.began:7.1f} s  {told(m)}" for m in timeline.since(0)]
    return "\n".join([*lines, f"trouble of the watch: {timeline.trouble or 'none'}", ""])


class _Kubectl:
    def __init__(self, kubeconfig: Path) -> None:
        self._words = [str(tool("kubectl")), "--kubeconfig", str(kubeconfig)]

    def into(self, file: Path, words: Sequence[str]) -> None:
        """The output of a command, or why there is none; never an error."""
        with file.open("w") as out:
            try:
                subprocess.run([*self._words, *words], stdout=out, stderr=out, timeout=COMMAND_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                out.write(f"{error}\n")
