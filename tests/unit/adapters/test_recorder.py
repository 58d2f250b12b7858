"""Events: counted, bounded, and never in the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.bucket import TokenBucket
from penstock.adapters.recorder import BURST, EventRecorder
from penstock.adapters.transport import Api, Patience, Response, Unreachable
from penstock.core.objects import MODEL_DEPLOYMENT, Object
from tests.fakes.clock import FakeClock
from tests.fakes.timer import FakeTimer


class Events:
    """`Send` for Events."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None

    async def __call__(self, method: str, path: str, headers: dict[str, str], body: Any) -> Response:
        if self.error is not None:
            raise self.error
        name = path.rsplit("/", 1)[1]
        if method == "POST":
            self.stored[body["metadata"]["name"]] = body
        elif name not in self.stored:
            return Response(404, {}, b"{}")
        else:
            self.stored[name] |= body
        return Response(200, {}, json.dumps(body).encode())

    @property
    def summary(self) -> list[tuple[str, int]]:
        return [(event["reason"], event["count"]) for event in self.stored.values()]


class Bench:
    def __init__(self) -> None:
        self.events = Events()
        self.clock = FakeClock()
        self.timer = FakeTimer()
        self.dropped: list[str] = []
        self.recorder = EventRecorder(
            Api(self.events, patience=Patience(attempts=1)),
            self.clock,
            "operator-1",
            on_drop=self.dropped.append,
            buckets=lambda: TokenBucket(1 / 300, BURST, self.timer),
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def model(name: str = "fraud") -> Object:
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "ml", "uid": f"uid-{name}", "resourceVersion": "7"},
    }


async def test_an_event_names_its_object(bench: Bench) -> None:
    await bench.recorder.record(model(), "Warning", "RolledBack", "accuracy fell")
    (event,) = bench.events.stored.values()
    assert event["involvedObject"] == {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ModelDeployment",
        "namespace": "ml",
        "name": "fraud",
        "uid": "uid-fraud",
        "resourceVersion": "7",
    }
    assert (event["type"], event["message"], event["firstTimestamp"]) == (
        "Warning",
        "accuracy fell",
        "2023-11-14T22:13:20Z",
    )


async def test_equal_ones_are_counted(bench: Bench) -> None:
    for _ in range(3):
        await bench.recorder.record(model(), "Normal", "Promoted", "done")
        bench.clock.advance(10)
    await bench.recorder.record(model(), "Normal", "Promoted", "done again")
    assert bench.events.summary == [("Promoted", 3), ("Promoted", 1)]
    first = next(iter(bench.events.stored.values()))
    assert (first["firstTimestamp"], first["lastTimestamp"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:13:40Z")


async def test_one_that_the_server_has_forgotten_is_written_anew(bench: Bench) -> None:
    await bench.recorder.record(model(), "Normal", "Promoted", "done")
    bench.events.stored.clear()
    await bench.recorder.record(model(), "Normal", "Promoted", "done")
    assert bench.events.summary == [("Promoted", 1)]


async def test_an_old_one_is_not_counted_up(bench: Bench) -> None:
    await bench.recorder.record(model(), "Normal", "Promoted", "done")
    bench.clock.advance(3601)
    await bench.recorder.record(model(), "Normal", "Promoted", "done")
    assert bench.events.summary == [("Promoted", 1), ("Promoted", 1)]


async def test_an_object_that_has_much_to_say_is_slowed_down_alone(bench: Bench) -> None:
    for i in range(BURST + 5):
        await bench.recorder.record(model(), "Normal", "Step", f"step {i}")
    assert len(bench.events.stored) == BURST
    assert bench.dropped == ["rate"] * 5
    await bench.recorder.record(model("other"), "Normal", "Step", "step")
    assert len(bench.events.stored) == BURST + 1
    bench.timer.advance(300)
    await bench.recorder.record(model(), "Normal", "Step", "later")
    assert len(bench.events.stored) == BURST + 2


async def test_a_long_message_is_cut(bench: Bench) -> None:
    await bench.recorder.record(model(), "Normal", "Step", "x" * 5000)
    (event,) = bench.events.stored.values()
    assert len(event["message"]) == 1024
    assert event["message"].endswith("x…")


@pytest.mark.parametrize("error", [Unreachable("no connection"), ZeroDivisionError("a defect")])
async def test_a_failure_is_no_reason_to_stop(bench: Bench, error: Exception) -> None:
    bench.events.error = error
    await bench.recorder.record(model(), "Normal", "Step", "step")
    assert bench.dropped == ["refused" if isinstance(error, Unreachable) else "defect"]
    bench.events.error = None
    await bench.recorder.record(model(), "Normal", "Step", "step")
    assert bench.events.summary == [("Step", 1)]
