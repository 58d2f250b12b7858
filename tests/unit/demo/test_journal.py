"""The journal keeps what is new, knows versions by their uris, and draws its picture from that."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from e2e.demo import plot
from e2e.demo.frame import picture
from e2e.demo.journal import Journal, answers
from e2e.demo.screen import line, milestone
from e2e.demo.view import bar, draw
from tests.unit.demo.states import NAMES, at_rest, ended, second, stepping

GATE = {
    "verdict": "InsufficientData",
    "samples": {"canary": 120, "stable": 2300},
    "logEvidence": {"fail": 0.4, "pass": 1.9},
}


@pytest.fixture
def journal() -> Journal:
    """v2 on trial at 5 %, some seconds of traffic."""
    journal = Journal()
    journal.begin(100.0, "3. v2, a support vector machine")
    journal.saw(at_rest(100.0, "v1", [ended("v1", "Promoted", "Promoted")]))
    journal.saw(stepping(103.0, "v1", "v2", 5, **GATE))
    for at in range(101, 111):
        canary = {"v2": (20, 1, 2.0)} if at > 103 else {}
        line = {"sent": 400 * (at - 100), "failed": 0, "second": second(float(at), v1=(380, 19, 3.0), **canary)}
        journal.counted(line)
    return journal


def test_keeps_a_sighting_only_if_it_is_news() -> None:
    journal = Journal()
    for at in (1.0, 2.0, 3.0):
        journal.saw(at_rest(at, "v1", []))
    journal.saw(at_rest(4.0, "v2", []))
    assert [s.at for s in journal.sightings] == [1.0, 4.0]


def test_waits_for_what_holds_already(journal: Journal) -> None:
    assert journal.wait(lambda s: s.canary == NAMES["v2"], timeout=0) is not None
    assert journal.wait(lambda s: s.is_at_rest, timeout=0) is None


def test_counts_the_answers_of_one_revision(journal: Journal) -> None:
    assert answers(journal.seconds, NAMES["v2"]) == (140, 7)
    assert answers(journal.seconds, "unknown") == (0, 0)


def test_the_picture_shows_both_arms_and_the_evidence(journal: Journal) -> None:
    frame = picture(journal, 110.0)
    assert (frame.phase, frame.stage, frame.step, frame.weight) == ("Progressing", "Stepping", "1/4", 5)
    assert frame.stable is not None
    assert frame.canary is not None
    assert (frame.stable.version, frame.canary.version) == ("v1", "v2")
    assert frame.canary.accuracy == pytest.approx(0.95)
    assert frame.canary.share == pytest.approx(0.05)
    assert frame.gates[0].log_pass == 1.9
    assert frame.gates[0].needs_pass == pytest.approx(3.0, abs=0.01)
    assert frame.rate == 400 - 0
    assert frame.elapsed == 10.0


def test_the_picture_of_nothing_can_be_drawn() -> None:
    text = drawn(Journal())
    assert "Pending" in text


def drawn(journal: Journal, width: int = 120) -> str:
    """The live view as text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(draw(picture(journal, 110.0), width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_live_view_tells_all_at_any_width(journal: Journal, width: int) -> None:
    text = drawn(journal, width)
    for word in ("Progressing", "Stepping", "1/4", "95.0%", "accuracy", "InsufficientData", "0 failed"):
        assert word in text
    assert max(len(row) for row in text.splitlines()) <= width


def test_a_plain_line_tells_the_same(journal: Journal) -> None:
    text = line(picture(journal, 110.0))
    for word in ("Progressing/Stepping", "step 1/4", "canary v2 2/2 5 %", "not worse 1.9/3.0", "400 req/s, 0 failed"):
        assert word in text


def test_only_news_makes_a_new_plain_line(journal: Journal) -> None:
    before = milestone(picture(journal, 110.0))
    journal.counted({"sent": 9, "failed": 0, "second": second(111.0, v1=(1, 0, 1.0))})
    assert milestone(picture(journal, 111.0)) == before
    journal.saw(stepping(112.0, "v1", "v2", 25, **GATE))
    assert milestone(picture(journal, 112.0)) != before


def test_any_share_shows_in_a_bar() -> None:
    assert bar(0, 10) == "·" * 10
    assert bar(0.001, 10).count("█") == 1
    assert bar(7, 10) == "█" * 10
    assert bar(-1, 10) == "·" * 10


def test_the_plot_has_a_line_for_each_version(journal: Journal, tmp_path: Path) -> None:
    names = journal.version_names()
    accuracy = plot.version_lines(journal.seconds, names, 100.0, "accuracy")
    assert sorted(accuracy) == ["v1", "v2"]
    assert accuracy["v1"].y == pytest.approx([95.0] * len(accuracy["v1"].y))
    weight = plot.weight_line(journal.sightings, 100.0, 110.0)
    assert (weight.x, weight.y) == ([0.0, 3.0, 10.0], [0.0, 5.0, 5.0])
    plot.draw(journal, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_gap_in_a_versions_traffic_is_a_gap_in_its_line() -> None:
    names = {NAMES["v1"]: "v1"}
    seconds = [second(1.0, v1=(10, 0, 2.0)), second(50.0, v1=(10, 0, 2.0))]
    points = plot.version_lines(seconds, names, 0.0, "p50_ms")["v1"].y
    assert len(points) == 3
    assert points[1] != points[1]
