"""A batch of feedback: read, matched to predictions, counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson

from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError
from penstock_runtime.server.feedback.ids import ForgedId, Prediction, PredictionId, read_id
from penstock_runtime.server.feedback.judge import Judge, Verdict
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.feedback.ledger import Ledger
from penstock_runtime.server.feedback.tally import REASONS, Tally

MAX_BATCH = 10_000
# Ids from the future beyond this skew of clocks are taken for forged, seconds.
MAX_SKEW = 300
# Items counted before others on the event loop get their turn: well under a millisecond.
_STRIDE = 32
_KINDS = ("label", "correct", "error")

Items = list[tuple[str, str, Any]]


class Intake:
    """Takes feedback for one model and counts it.

    An item is {id, label}, {id, correct} or {id, error}. For a request of several rows the value is a list of
    one entry a row (null: not known). An item counts once per pod within the window.
    """

    def __init__(self, model: str, keys: Keys, judge: Judge, ledger: Ledger, tally: Tally) -> None:
        """Put the parts together; `judge` may be exchanged at any time."""
        self._model = model
        self._keys = keys
        self.judge = judge
        self._ledger = ledger
        self._tally = tally

    async def take(self, body: bytes) -> dict[str, Any]:
        """Count the batch in `body`; return {"accepted", "rejected": {reason: n}}.

        Raises ProtocolError (400, 413) before anything is counted if the batch as such is malformed.
        """
        items = read_batch(body)
        now = time.time()
        accepted = 0
        rejected = dict.fromkeys(REASONS, 0)
        for index, item in enumerate(items):
            if index % _STRIDE == _STRIDE - 1:
                await asyncio.sleep(0)
            reason = self._take_one(*item, now)
            if reason is None:
                accepted += 1
            else:
                rejected[reason] += 1
                self._tally.rejected[reason] += 1
        return {"accepted": accepted, "rejected": rejected}

    def _take_one(self, text: str, kind: str, value: object, now: float) -> str | None:
        try:
            known = read_id(text, self._keys, self._model)
        except ForgedId:
            return "unmatched"
        if known.issued > now + MAX_SKEW:
            return "unmatched"
        if self._ledger.is_expired(known.issued, now, self.judge.window):
            return "expired"
        if self._ledger.has(known.origin, known.counter):
            return "duplicate"
        verdicts = self._verdicts(known, kind, value)
        if not verdicts:
            return "unmatched"
        self._ledger.add(known.origin, known.counter, known.issued, now, self.judge.window)
        for prediction, verdict in verdicts:
            predicted = None if prediction is None or type(prediction) is float else str(prediction)
            self._tally.count(known.revision, known.cohort, known.issued, predicted, verdict)
        return None

    def _verdicts(
        self, known: PredictionId, kind: str, value: object
    ) -> list[tuple[Prediction | None, Verdict]] | None:
        """Return what the item says of each row; None if any row's value does not fit its prediction."""
        values = value if type(value) is list else [value]
        if len(values) != known.rows:
            return None
        predictions = known.predictions or (None,) * known.rows
        verdicts: list[tuple[Prediction | None, Verdict]] = []
        for prediction, item in zip(predictions, values, strict=True):
            if item is None:
                continue
            verdict = self._verdict(kind, prediction, item)
            if verdict is None:
                return None
            verdicts.append((prediction, verdict))
        return verdicts

    def _verdict(self, kind: str, prediction: Prediction | None, item: Any) -> Verdict | None:
        match kind:
            case "correct":
                return Verdict(item, None, None) if type(item) is bool else None
            case "error":
                return self.judge.of_error(float(item)) if type(item) in (int, float) else None
        if prediction is None or type(item) not in (str, int, float, bool):
            return None
        return self.judge.compare(prediction, item)


def read_batch(body: bytes) -> Items:
    """Return (id, kind, value) of each item; raises ProtocolError if the batch is malformed or too long."""
    try:
        batch = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if type(batch) is not list:
        raise InvalidRequest("the body must be a list of {id, label}, {id, correct} or {id, error}")
    if len(batch) > MAX_BATCH:
        raise ProtocolError(f"{len(batch)} items in a batch; at most {MAX_BATCH} are taken", status=413)
    return [_read_item(index, item) for index, item in enumerate(batch)]


def _read_item(index: int, item: object) -> tuple[str, str, Any]:
    if isinstance(item, Mapping):
        kinds = [kind for kind in _KINDS if kind in item]
        if type(item.get("id")) is str and len(kinds) == 1:
            return item["id"], kinds[0], item[kinds[0]]
    raise InvalidRequest(f"item {index} must hold a string 'id' and exactly one of label, correct, error")
