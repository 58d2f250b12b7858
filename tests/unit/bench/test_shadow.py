"""Shadowing as it is measured: a real server with a real shadow, and when a run is worth nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bench.server.cases import PENSTOCK
from bench.server.measure import prepare
from bench.server.models import write_models
from bench.server.overload import send_at_rate, whole_request
from bench.server.processes import CLIENT_CORE, Meter, free_ports
from bench.server.servers import Servers
from bench.server.shadow import CASES, YIELDING, Pair, shadowed_of, under_way
from e2e.cluster.console import Problem

COUNTS = {"seen": 10, "agree": 7, "disagree": 1, "error": 0, "dropped": 2}
TOLD: dict[str, Any] = {"due": 10, "ok": {"count": 10, "p50": 0.001, "p99": 0.002}, "lag_p99": 0.0001}
METERS = (Meter(0.0, 1.0, 5.0), Meter(2.0, 1.5, 5.7))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("there is one core only")
    folder = tmp_path_factory.mktemp("shadow")
    model = write_models()["iris"]
    with Servers(model, folder) as servers:
        (admin_port,) = free_ports(1)
        server = servers.start(PENSTOCK, more=("--admin-port", str(admin_port)))
        target = servers.start(PENSTOCK, cores=(CLIENT_CORE,), before=YIELDING)
        request = folder / "request"
        request.write_bytes(whole_request(prepare(CASES[0], model, folder)))
        yield Pair(server, admin_port, target, request)


def test_every_request_is_copied_and_compared_until_told_otherwise(pair: Pair) -> None:
    pid = pair.target.processes[0].pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    for _ in range(2):  # the second time the counts begin anew
        pair.shadow()
        told = send_at_rate(pair.server.http_port, 40, 0.5, pair.request, "--random")
        counts = pair.settle()
        assert told["statuses"] == {"200": 20, "lost": 0}
        assert counts == {"seen": 20, "agree": 20, "disagree": 0, "error": 0, "dropped": 0}
    pair.stop()
    assert pair.call("GET")["shadow"] is None


def test_a_server_that_refuses_the_setting_is_told(pair: Pair) -> None:
    with pytest.raises(Problem, match=r"PUT /v2/shadow was answered with 400: .*fraction"):
        pair.call("PUT", {"to": "http://127.0.0.1:1", "fraction": 2})
    with pytest.raises(Problem, match="GET /v2/shadow had no answer: ConnectionRefusedError"):
        replace(pair, admin_port=1).call("GET")


def test_what_the_client_and_the_server_told_becomes_a_run() -> None:
    run = shadowed_of("iris", 5.0, TOLD, COUNTS, METERS)
    assert (run.shadowed, run.offered, run.p50, run.p99) == (True, 5.0, 0.001, 0.002)
    assert run.cpu == pytest.approx(0.05)
    assert run.foreign == pytest.approx(0.1)
    assert (run.seen, run.agreed, run.disagreed, run.failed, run.dropped, run.void) == (10, 7, 1, 0, 2, "")
    without = shadowed_of("iris", 5.0, TOLD, {}, METERS)
    assert (without.shadowed, without.seen, without.void) == (False, 0, "")


@pytest.mark.parametrize(
    ("told", "counts", "void"),
    [
        ({"ok": {"count": 8, "p50": 0.1, "p99": 0.1}}, {}, "2 of 10 requests were not answered with 200"),
        ({"ok": {"count": 0, "p50": 0.0, "p99": 0.0}}, {}, "10 of 10 requests were not answered with 200"),
        ({"lag_p99": 0.03}, {}, "the client was 30 ms late"),
        ({}, {"seen": 9}, "the shadow saw 9 of 10 requests"),
        ({}, {"agree": 4}, "3 copies had no result after 10 s"),
    ],
)
def test_a_run_that_says_nothing_about_shadows_is_void(told: dict[str, Any], counts: dict[str, int], void: str) -> None:
    counts = {**COUNTS, **counts} if counts else {}
    assert shadowed_of("iris", 5.0, {**TOLD, **told}, counts, METERS).void == void


def test_copies_under_way() -> None:
    assert under_way(COUNTS) == 0
    assert under_way({**COUNTS, "seen": 13}) == 3
