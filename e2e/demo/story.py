"""Plays the chapters: apply, wait until the cluster is at rest again, and hold what was seen against what was hoped."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster.console import Problem
from e2e.cluster.places import CACHE, ROOT, kubeconfig
from e2e.demo import prepare
from e2e.demo.chapters import AFTER_TRAFFIC, FIRST, Chapter
from e2e.demo.journal import Journal, Sighting, answers
from e2e.demo.kube import Window, apply
from e2e.demo.pace import Pace
from e2e.demo.result import Result
from e2e.demo.settings import DEMO_CACHE, HOST, MODEL, NAMESPACE, Options, uri_of, version_of
from e2e.demo.verify import Objects, Seen, complaints, route_weights
from e2e.load.process import LoadProcess, Target
from e2e.load.rows import Endpoint
from penstock.api.status import Outcome

MANIFEST = ROOT / "examples" / MODEL / "modeldeployment.yaml"
STEADY_SECONDS = 5
OBJECTS_SECONDS = 15.0
"""After the status has the end of a chapter, the other objects may take so long to show the same."""


@dataclass
class Story:
    """The whole play. `results` fills as it goes; the first outcome that is not seen ends it with a Problem."""

    options: Options
    journal: Journal
    window: Window
    held_out: Path
    tell: Callable[[str], None]
    results: list[Result] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    """The load generator's own report, once it has stopped."""

    def play(self) -> None:
        """All chapters in order. Problem where one does not end as it should."""
        self._chapter(FIRST)
        target = Target(
            url=prepare.address("gateway"),
            host=HOST,
            model=MODEL,
            data=self.held_out,
            feedback_url=prepare.address("feedback"),
            feedback_delay=self.options.label_delay,
        )
        await_answer(target, self.options.patience)
        pace = Pace(self.options.rate)
        with LoadProcess(target, pace.rate, self.journal.counted) as load:
            self.journal.on_second = lambda line: self._keep_pace(pace, load, line)
            try:
                self._traffic(load, pace)
                for chapter in AFTER_TRAFFIC:
                    self._chapter(chapter)
                for _ in range(STEADY_SECONDS):
                    load.next_second()
            finally:
                self.report = load.stop()

    def _keep_pace(self, pace: Pace, load: LoadProcess, line: Mapping[str, Any]) -> None:
        if pace.must_slow_down(line):
            load.set_rate(pace.rate)
            self.tell(f"   this machine is too busy: {pace.rate:.0f} requests a second from now on")

    def _traffic(self, load: LoadProcess, pace: Pace) -> None:
        title = f"traffic: {self.options.rate:.0f} requests a second through the gateway, labels later"
        self._begin(2, title)
        started = time.monotonic()
        steady = 0
        line: dict[str, Any] = {}
        while steady < STEADY_SECONDS:
            if time.monotonic() - started > self.options.patience:
                raise Problem(f"traffic does not flow: {_traffic_trouble(line)}", f"try: curl -i {_curl()}")
            line = load.next_second()
            second = line["second"]["revisions"]
            flows = sum(c["ok"] for c in second.values()) >= 0.8 * pace.rate
            fails = any(c["failed"] for c in second.values())
            steady = steady + 1 if flows and not fails else 0
        if not line["feedback"].get("accepted"):
            raise Problem(
                f"labels do not arrive: {line['feedback'] or 'no answer'}",
                f"{kubectl_line()} logs -n {NAMESPACE} -l penstock.dev/model={MODEL}",
            )
        route = self.window.get(_route_path())
        accepted = [c for p in (route or {}).get("status", {}).get("parents", []) for c in p["conditions"]]
        if not any(c["type"] == "Accepted" and c["status"] == "True" for c in accepted):
            raise Problem(
                "the HTTPRoute is not accepted by the Gateway", f"{kubectl_line()} describe httproute -n {NAMESPACE}"
            )
        revision = next(iter(route_weights(route)), "").removeprefix(f"{MODEL}-")
        answered, wrong = answers(self.journal.seconds, revision)
        told = (
            f"{line['sent']:,} requests, {line['failed']} failed, {1 - wrong / max(answered, 1):.1%} right, "
            f"{line['feedback']['accepted']:,} labels taken"
        )
        self._end(Result(2, title, told, time.monotonic() - started, True, answered, wrong))

    def _begin(self, number: int, title: str) -> float:
        now = time.time()
        self.journal.begin(now, f"{number}. {title}")
        self.tell(f"\n{number}. {title}")
        return now

    def _end(self, result: Result) -> None:
        self.results.append(result)
        self.tell(f"   {'seen' if result.seen else 'NOT SEEN'} after {result.seconds:.0f} s: {result.told}")
        if result.message:
            self.tell(f"   {result.message}")

    def _chapter(self, chapter: Chapter) -> None:
        begun = self._begin(chapter.number, chapter.title)
        before = self.journal.latest
        manifest = write_manifest(chapter.version)
        apply(manifest, NAMESPACE)
        generation = _generation(self.window)
        last_before = before.last if before else None

        def is_over(sighting: Sighting) -> bool:
            current = sighting.model["metadata"]["generation"] >= generation
            return current and sighting.is_at_rest and sighting.last is not None and sighting.last != last_before

        end = self.journal.wait(is_over, self.options.patience)
        if end is None or end.last is None:
            raise Problem(
                f"chapter {chapter.number} ({chapter.version}) has no end after {self.options.patience:.0f} s: "
                f"{_where(self.journal.latest)}"
            )
        seconds = end.at - begun
        revision = end.last.revision or ""
        seen = self._settle(chapter, begun, revision, seconds)
        wrong_things = complaints(chapter, seen)
        answered, wrong = answers(self._seconds_since(begun), revision)
        told = _told(chapter, answered, wrong, sum(s["sent"] for s in self._seconds_since(begun)))
        self._end(
            Result(
                chapter.number,
                chapter.title,
                told if not wrong_things else "; ".join(wrong_things),
                seconds,
                not wrong_things,
                answered,
                wrong,
                end.status.message or "",
            )
        )
        if wrong_things:
            raise Problem(f"chapter {chapter.number} ({chapter.version}): {'; '.join(wrong_things)}")

    def _settle(self, chapter: Chapter, begun: float, revision: str, seconds: float) -> Seen:
        """What was seen, as soon as nothing is left to complain about, at the latest after a while."""
        give_up = time.monotonic() + OBJECTS_SECONDS
        while True:
            answered, _ = answers(self._seconds_since(begun), revision)
            seen = Seen(self.journal.since(begun), _objects(self.window), revision, answered, seconds)
            if not complaints(chapter, seen) or time.monotonic() > give_up:
                return seen
            time.sleep(0.5)

    def _seconds_since(self, at: float) -> list[Any]:
        with self.journal.news:
            return [second for second in self.journal.seconds if second["at"] > at]


def await_answer(target: Target, timeout: float) -> None:
    """Wait until the gateway knows the route, so that the first counted request finds it. Problem after `timeout` s."""
    endpoint = Endpoint.parse(target.url, target.host)
    give_up = time.monotonic() + timeout
    while True:
        connection = http.client.HTTPConnection(endpoint.address, endpoint.port, timeout=2)
        try:
            connection.request("GET", f"/v2/models/{target.model}", headers={"Host": endpoint.host})
            if (status := connection.getresponse().status) == 200:
                return
            said = str(status)
        except (OSError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
        finally:
            connection.close()
        if time.monotonic() > give_up:
            raise Problem(f"the gateway does not serve {target.host}: {said}", f"try: curl -i {_curl()}")
        time.sleep(0.3)


def write_manifest(version: str) -> Path:
    """The example's manifest with another version's uri; kept, so that the user can go on with it by hand."""
    text = MANIFEST.read_text()
    if uri_of("v1") not in text:
        raise Problem(f"{MANIFEST} does not name {uri_of('v1')}")
    path = DEMO_CACHE / "manifests" / f"{MODEL}-{version}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(uri_of("v1"), uri_of(version)))
    return path


def _generation(window: Window) -> int:
    model = window.get(f"/apis/penstock.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/{MODEL}")
    return int((model or {}).get("metadata", {}).get("generation", 1))


def _route_path() -> str:
    return f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes/{MODEL}"


def _objects(window: Window) -> Objects:
    deployments = window.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments") or {"items": []}
    return Objects(deployments["items"], window.get(_route_path()))


def _told(chapter: Chapter, answered: int, wrong: int, everybody: int) -> str:
    match chapter.expect.outcome:
        case Outcome.PROMOTED if answered:
            return f"{chapter.moral}; {answered:,} answers, {1 - wrong / answered:.1%} right"
        case Outcome.ROLLED_BACK if answered:
            share = wrong / everybody if everybody else 0.0
            impact = f"{wrong:,} of them wrong: {share:.1%} of all in that time" if wrong else "none of them wrong"
            return f"{chapter.moral}; {answered:,} answers, {impact}"
        case Outcome.REJECTED:
            return f"{chapter.moral}; {answered} answers"
    return chapter.moral


def _where(latest: Sighting | None) -> str:
    if latest is None:
        return "the ModelDeployment was never seen"
    words = [str(latest.phase or "no phase"), str(latest.stage or "")]
    if latest.canary:
        uri = latest.status.canary.uri if latest.status.canary else ""
        words.append(f"canary {version_of(uri)} at {latest.weight} %")
    return " ".join(w for w in words if w) + f': "{latest.status.message or "no message"}"'


def _traffic_trouble(line: dict[str, Any]) -> str:
    if not line:
        return "the load generator says nothing"
    last = line["last_failures"][-1] if line["last_failures"] else {}
    return f"{line['ok']} answers, {line['failed']} failures {line['failures']}; the last: {last.get('detail', '-')}"


def kubectl_line() -> str:
    """kubectl as it is to be typed, with its path and this cluster's kubeconfig."""
    return f"{CACHE / 'bin' / 'kubectl'} --kubeconfig {kubeconfig()}"


def _curl() -> str:
    return f"-H 'Host: {HOST}' {prepare.address('gateway')}/v2/models/{MODEL}"
