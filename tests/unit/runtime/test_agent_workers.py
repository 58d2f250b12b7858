"""Several agents behind one port: one agent to everybody else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.runtime.conftest import Start, StartAgent
from tests.unit.runtime.forwarding import told, url
from tests.unit.runtime.process import SETOSA, AgentProcess, Server, call, iris_request
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.shadowing import pairs, shadow
from tests.unit.runtime.test_overload import wait_until
from tests.unit.runtime.test_workers import children, follow_workers

WORKERS = 3


@pytest.fixture
def agent(iris: Server, start_agent: StartAgent) -> AgentProcess:
    return follow_workers(start_agent(url(iris), "--workers", str(WORKERS), "--drain-seconds", "0"))


def test_numbers_are_summed_and_a_label_counts_once_whichever_worker_passed_it_on(agent: AgentProcess) -> None:
    ids = [agent.infer(iris_request(SETOSA)).headers["penstock-prediction-id"] for _ in range(30)]
    assert requests_by_outcome(agent)["ok"] == 30
    assert sample(agent, "penstock_model_loaded") == 1
    body = [{"id": each, "label": 0} for each in ids]
    assert agent.feedback(body).json == {"accepted": 30, "rejected": {"unmatched": 0, "duplicate": 0, "expired": 0}}
    assert agent.feedback(body).json["rejected"]["duplicate"] == 30


def test_what_is_told_reaches_all_workers(agent: AgentProcess, start_server: Start) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    assert shadow(agent, to=url(canary), fraction=1).status == 200
    for _ in range(30):
        assert agent.infer(iris_request(SETOSA)).status == 200
    wait_until(lambda: pairs(agent)["agree"] == 30)
    assert call(agent.admin_port, "PUT", "/v2/forward", {"to": url(canary), "share": 1}).status == 200
    assert {agent.infer(iris_request(SETOSA)).headers["penstock-revision"] for _ in range(30)} == {"canary"}
    assert told(agent)["forward"]["share"] == 1


def test_workers_end_with_a_signal_and_with_their_supervisor(iris: Server, start_agent: StartAgent) -> None:
    agent = follow_workers(start_agent(url(iris), "--workers", str(WORKERS), "--drain-seconds", "0"))
    agent.terminate()
    assert agent.wait_exit() == 0
    # Also where the upstream has never been there.
    waiting = start_agent("http://127.0.0.1:1", "--workers", str(WORKERS))
    for _ in range(WORKERS + 1):
        waiting.wait_log("listening")
    workers = children(waiting)
    assert len(workers) == WORKERS
    waiting._process.kill()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_a_worker_that_dies_ends_the_agent(agent: AgentProcess) -> None:
    os.kill(children(agent)[1], signal.SIGKILL)
    assert agent.wait_exit() == 1
