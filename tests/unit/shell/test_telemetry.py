"""Metrics and logs of the operator itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.shell.telemetry import Telemetry, configure_logging, log_context


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Put the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    names = ("kopf", "kopf._core.reactor.running", "kubernetes", "aiohttp.access")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def test_what_happened_is_in_the_exposition() -> None:
    telemetry = Telemetry()
    waiting = [3]
    telemetry.follow(lambda: waiting[0], lambda: 1, lambda: 0.0)
    telemetry.reconciled("success", 0.2)
    telemetry.kube_request("patch", "Service", "409", 0.01)
    telemetry.event_dropped("rate")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(telemetry.exposition().decode())
        for sample in family.samples
    }
    assert samples["penstock_reconcile_total", (("result", "success"),)] == 1
    assert samples["penstock_workqueue_depth", ()] == 3
    labels = (("code", "409"), ("kind", "Service"), ("verb", "patch"))
    assert samples["penstock_kube_requests_total", labels] == 1
    assert samples["penstock_events_dropped_total", (("reason", "rate"),)] == 1
    waiting[0] = 0
    assert b"penstock_workqueue_depth 0.0" in telemetry.exposition()


@pytest.mark.usefixtures("logging_restored")
async def test_json_lines_carry_the_object_of_their_reconcile(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")

    async def part() -> None:
        logging.getLogger("penstock.part").info("inside")

    with log_context(namespace="ml", name="fraud", reconcile="abc"):
        await asyncio.gather(part())
    logging.getLogger("penstock.part").info("outside")
    inside, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (inside["namespace"], inside["object"], inside["reconcile"]) == ("ml", "fraud", "abc")
    assert (inside["message"], inside["level"], inside["logger"]) == ("inside", "INFO", "penstock.part")
    assert "object" not in outside


@pytest.mark.usefixtures("logging_restored")
def test_text_lines_end_with_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text", "WARNING")
    with log_context(namespace="ml", name="fraud"):
        logging.getLogger("penstock.part").warning("slow")
        logging.getLogger("penstock.part").info("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING penstock.part: slow [ml/fraud]")
