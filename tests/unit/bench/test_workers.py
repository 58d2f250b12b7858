"""A second core: setups as they are measured, and what is made of their numbers."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.server.cases import CASES
from bench.server.measure import ask, check, prepare
from bench.server.models import write_models
from bench.server.processes import children_of
from bench.server.servers import Servers
from bench.server.workers import ONE_CORE, SETUPS, Scaled, most_ratio, ratios, start

IRIS_JSON = CASES[0]
RUN = Scaled("convnet", ONE_CORE.title, 100.0, 0.01, 0.02, 0.01, 0.0, 0.0)
TWO_PROCESSES = next(setup for setup in SETUPS if setup.words == ("--workers", "2"))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core only")
def test_two_processes_on_two_cores_answer_and_are_counted_together(tmp_path: Path) -> None:
    model = write_models()["iris"]
    with Servers(model, tmp_path) as servers:
        one, two = start(servers, ONE_CORE), start(servers, TWO_PROCESSES)
        assert children_of(one.processes[0].pid) == []
        workers = children_of(two.processes[0].pid)
        assert [os.sched_getaffinity(pid) for pid in workers] == [{0, 1}] * 2
        load = prepare(IRIS_JSON, model, tmp_path)
        assert [check(IRIS_JSON, server, load, model) for server in (one, two)] == ["", ""]
        before, end = two.processes[0].cpu_seconds(), time.monotonic() + 30
        while two.processes[0].cpu_seconds() < before + 0.05 and time.monotonic() < end:
            ask(IRIS_JSON, two.http_port, load)
        assert two.processes[0].cpu_seconds() >= before + 0.05, "workers' time is the server's"


def test_ratios_are_of_the_same_round() -> None:
    base = [replace(RUN, rate=rate) for rate in (100.0, 50.0)]
    assert ratios([replace(RUN, rate=rate) for rate in (150.0, 100.0)], base) == [1.5, 2.0]


def test_the_most_there_is_to_be_had_is_less_by_what_the_client_needs() -> None:
    assert most_ratio([RUN]) == 2.0
    assert most_ratio([replace(RUN, client=0.25)]) == pytest.approx(1.6)
    # Half the rate because others had half the core: the client's part of an answer is the same.
    assert most_ratio([replace(RUN, rate=50.0, client=0.125)]) == pytest.approx(1.6)
