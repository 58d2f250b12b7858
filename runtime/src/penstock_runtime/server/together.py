"""Answers to requests that were run together, each step made for all of them before the next one.

So the code and data of a step are in the CPU's cache for all requests but the first, and numbers are written, ids
signed and answers counted by the dozen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from penstock_runtime.engine.job import Job, Together
from penstock_runtime.engine.joint import parts_of
from penstock_runtime.protocol.encode_rows import with_id
from penstock_runtime.server.http import JSON_TYPE, head_of
from penstock_runtime.server.statistics import Work

if TYPE_CHECKING:
    from penstock_runtime.server.call import Call


class _Asked(NamedTuple):
    """A request of one row that wants the same outputs as its neighbours, in JSON; and its row in the run."""

    call: Call
    asked: float
    row: int


def answer_together(jobs: Sequence[Job], together: Together) -> None:
    """Answer `jobs`, each of which a Call of one and the same model waits for."""
    plain: list[_Asked] = []
    wanted: tuple[str, ...] | None = None
    row = 0
    for job in jobs:
        call = cast("Call", job.waiter)
        if call.plain and not call.done() and wanted in (None, call.request.outputs):
            wanted = call.request.outputs
            plain.append(_Asked(call, job.asked, row))
        row += job.rows
    if wanted is not None:
        _answer_plain(plain, wanted, jobs[0].outputs, together)
    if len(plain) < len(jobs) or not plain[0].call.done():
        for job, result in parts_of(jobs, together):
            if not job.waiter.done():
                job.waiter.set_result(result)


def _answer_plain(plain: Sequence[_Asked], wanted: Sequence[str], fetched: Sequence[str], together: Together) -> None:
    """Answer and count them, or do nothing if any of them cannot be answered."""
    serving = plain[0].call.serving
    begun = time.perf_counter()
    try:
        texts, predictions = serving.encode_rows(wanted, fetched, together)
        predictions = [predictions[each.row] for each in plain] if predictions else ()
        ids = serving.issuer.issue_each(time.time(), len(plain), predictions)
        bodies = [with_id(texts, each.row, each.call.request.id) for each in plain]
    except Exception:  # noqa: BLE001 - it may be one request's doing: each is answered by itself then
        return
    encoding = time.perf_counter() - begun
    head = head_of(200, (JSON_TYPE, serving.revision_header)) + b"penstock-prediction-id: "
    seconds: list[float] = []
    for (call, _, _), issued, body in zip(plain, ids, bodies, strict=True):
        call.exchange.send(head + issued + b"\r\n", body)
        call.outcome = "ok"
        seconds.append(call.answered())
    serving.metrics.post_here(
        serving.count_together, seconds, [together.start - each.asked for each in plain], together, predictions,
        Work(sum([each.call.decoding for each in plain]), encoding),
    )  # fmt: skip
