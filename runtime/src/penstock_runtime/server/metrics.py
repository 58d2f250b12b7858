"""Counters and histograms of the measurement contract, and their Prometheus text.

Written by hand: an observation is a bisection and two additions, and the text is built from parts that were
escaped once. All calls come from the event loop, so nothing locks; what other threads have to count they post.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

OUTCOMES = ("ok", "client_error", "server_error", "rejected", "timeout")
FORWARD_RESULTS = ("forwarded", "fallback", "timeout")
SHADOW_RESULTS = ("agree", "disagree", "error")
DURATION_BOUNDS = tuple(round(0.001 * 1.1**k, 9) for k in range(97))
STAGE_BOUNDS = tuple(round(0.00001 * 2.0**k, 9) for k in range(21))
BATCH_BOUNDS = tuple(2.0**k for k in range(13))
VALUE_BOUNDS = (
    *(-float(10**k) for k in range(6, -4, -1)),
    0.0,
    *(float(10**k) for k in range(-3, 7)),
)
_OUTCOMES = {200: "ok", 429: "rejected", 503: "rejected", 504: "timeout"}
MAX_CLASSES = 20
# Counted one by one, each finds its code and its counters pushed out of the CPU's cache by the model.
MANY = 256
OTHER_CLASS = "other"


class Histogram:
    """A classic histogram with fixed upper bounds."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_labels", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` rise; +Inf is implied."""
        self._bounds = bounds
        self._labels = [repr(bound) for bound in bounds] + ["+Inf"]
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: dict[int, str] = {}
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value` in the first bucket whose bound is >= it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_each(self, values: Sequence[float]) -> None:
        """Count each of `values`."""
        counts = self._counts
        for index in map(bisect_left, repeat(self._bounds), values):
            counts[index] += 1
        self.sum += sum(values)

    def observe_times(self, value: float, times: int) -> None:
        """Count `value` so many times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def exemplify(self, value: float, trace_id: str, now: float) -> None:
        """Keep the trace of an observed `value` as its bucket's exemplar; `now` is the time in seconds."""
        self._exemplars[bisect_left(self._bounds, value)] = f'{{trace_id="{trace_id}"}} {value!r} {now:.3f}'

    def exemplars(self, name: str, labels: str) -> Iterator[tuple[str, str]]:
        """Yield the series and the exemplar of each bucket that has one; names and labels as in `lines`."""
        for index, exemplar in self._exemplars.items():
            yield f'{name}_bucket{{{labels},le="{self._labels[index]}"}}', exemplar

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, int]]:
        """Return the upper bound and the count, not cumulative, of each bucket that is not empty."""
        return [(label, count) for label, count in zip(self._labels, self._counts, strict=True) if count]

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield the exposition lines; `labels` is the escaped inner part, such as `model="m"`."""
        total = 0
        for label, count in zip(self._labels, self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{label}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self.sum!r}"
        yield f"{name}_count{{{labels}}} {total}"


class Metrics:
    """All series of one model in one pod except feedback, which has labels of its own."""

    def __init__(self, model: str, revision: str) -> None:
        """Start every series at 0, labelled with `model` and `revision`."""
        self.model = model
        self.revision = revision
        self._labels = f'model="{escape(model)}",revision="{escape(revision)}"'
        self.requests = dict.fromkeys(OUTCOMES, 0)
        self.forwarded = dict.fromkeys(FORWARD_RESULTS, 0)
        self.forward_seconds = Histogram(STAGE_BOUNDS)
        self.shadow_pairs = dict.fromkeys(SHADOW_RESULTS, 0)
        self.shadow_dropped = 0
        self.shadow_requests = dict.fromkeys(OUTCOMES, 0)
        self.request_seconds = Histogram(DURATION_BOUNDS)
        self.inference_seconds = Histogram(STAGE_BOUNDS)
        self.queue_seconds = Histogram(STAGE_BOUNDS)
        self.batch_size = Histogram(BATCH_BOUNDS)
        self.prediction_values = Histogram(VALUE_BOUNDS)
        self.classes: Counter[str] = Counter()
        self.loads = {"ok": 0, "failed": 0}
        self.model_loaded = 0
        self.load_seconds = 0.0
        self._posted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def post(self, count: Callable[..., None], *args: Any) -> None:
        """Have `count` called on the event loop before anyone reads; may be called from any thread."""
        self._posted.append((count, args))

    def post_here(self, count: Callable[..., None], *args: Any) -> None:
        """The same from the event loop, for what is cheaper to count many at a time."""
        self._posted.append((count, args))
        if len(self._posted) >= MANY:
            self.settle()

    def settle(self) -> None:
        """Count what was posted. To be called before reading, and now and then, so that it does not pile up."""
        posted = self._posted
        while posted:
            count, args = posted.popleft()
            count(*args)

    def count_predictions(self, predictions: Sequence[int | str | float]) -> None:
        """Count predicted classes (int, str) or values (float) for drift."""
        if not predictions:
            return
        if type(predictions[0]) is float:
            for value in predictions:
                self.prediction_values.observe(float(value))
        elif len(predictions) == 1:
            count_class(self.classes, str(predictions[0]), 1)
        else:
            for item, count in Counter(predictions).items():
                count_class(self.classes, str(item), count)

    def exemplars(self) -> Iterator[tuple[str, str]]:
        """Yield the series of buckets with an exemplar, and that."""
        self.settle()
        return self.request_seconds.exemplars("penstock_request_duration_seconds", self._labels)

    def lines(self) -> Iterator[str]:
        """Yield the exposition lines of all series."""
        self.settle()
        labels = self._labels
        for name, label, text, counts in (
            ("requests", "outcome", "Inference requests by outcome", self.requests),
            ("forwarded", "result", "Requests of the share that is forwarded", self.forwarded),
            ("shadow_pairs", "result", "Answers compared with a shadow's", self.shadow_pairs),
            ("shadow_requests", "outcome", "Copies of other servers' requests, by outcome", self.shadow_requests),
        ):
            yield from family(f"penstock_{name}_total", "counter", text)
            for value, count in counts.items():
                yield f'penstock_{name}_total{{{labels},{label}="{value}"}} {count}'
        yield from family("penstock_shadow_dropped_total", "counter", "Copies not sent, as too many waited")
        yield f"penstock_shadow_dropped_total{{{labels}}} {self.shadow_dropped}"
        for name, text, histogram in (
            ("request_duration_seconds", "Whole request, successful ones only", self.request_seconds),
            ("inference_duration_seconds", "Time in the model", self.inference_seconds),
            ("queue_duration_seconds", "Time waiting for the model", self.queue_seconds),
            ("forward_duration_seconds", "Time until the target's answer was there", self.forward_seconds),
            ("batch_size", "Rows in one run of the model", self.batch_size),
            ("prediction_value", "Predicted numbers", self.prediction_values),
        ):
            yield from family(f"penstock_{name}", "histogram", text)
            yield from histogram.lines(f"penstock_{name}", labels)
        yield from family("penstock_prediction_total", "counter", "Predicted classes")
        for item, count in self.classes.items():
            yield f'penstock_prediction_total{{{labels},class="{escape(item)}"}} {count}'
        yield from family("penstock_model_loaded", "gauge", "1 once the model is loaded and warm")
        yield f"penstock_model_loaded{{{labels}}} {self.model_loaded}"
        yield from family("penstock_model_loads_total", "counter", "Loads of the model by result")
        for result, count in self.loads.items():
            yield f'penstock_model_loads_total{{{labels},result="{result}"}} {count}'
        yield from family("penstock_model_load_seconds", "gauge", "Time that the last load and warm-up took")
        yield f"penstock_model_load_seconds{{{labels}}} {self.load_seconds!r}"


def outcome_of(status: int) -> str:
    """Return the outcome of a request that is answered with this HTTP status, or would be."""
    return _OUTCOMES.get(status, "client_error" if status < 500 else "server_error")


def family(name: str, kind: str, text: str) -> tuple[str, str]:
    """Return the HELP and TYPE lines of a metric."""
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def escape(value: str) -> str:
    """Return `value` as it stands between the quotes of a label."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def count_class(classes: Counter[str], item: str, count: int) -> None:
    """Add `count` to class `item`; beyond 20 classes all others are counted together as "other"."""
    item = item[:64]
    if item not in classes and len(classes) >= MAX_CLASSES:
        item = OTHER_CLASS
    classes[item] += count


def exposition(parts: Iterable[Iterable[str]]) -> bytes:
    """Return the text of all `parts`, in Prometheus' text format 0.0.4, which wants each metric's lines together."""
    return "".join(
        "\n".join((*family(name, kind, text), *samples, "")) for name, kind, text, samples in families(parts)
    ).encode()


def families(parts: Iterable[Iterable[str]]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield name, type, help and samples of each metric, of whichever parts they come from."""
    found: dict[str, tuple[str, list[str]]] = {}
    samples: list[str] = []
    head = ""
    for line in chain.from_iterable(parts):
        if line.startswith("# HELP "):
            head = line.removeprefix("# HELP ")
        elif line.startswith("# TYPE "):
            samples = found.setdefault(head, (line.rpartition(" ")[2], []))[1]
        else:
            samples.append(line)
    for head, (kind, lines) in found.items():
        name, _, text = head.partition(" ")
        yield name, kind, text, lines
