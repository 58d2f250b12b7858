"""The text format, against prometheus_client's own reader and writer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from penstock.adapters.exposition import parse

TEXT = r"""# HELP penstock_requests_total Inference requests
# TYPE penstock_requests_total counter
penstock_requests_total{model="m",revision="r1",outcome="ok"} 12
penstock_requests_total{model="m",revision="r1",outcome="server_error",} 0.0
penstock_requests_total { model = "a \"b\" \\ c\nd,e}f" , outcome="ok" }  3e2
other_total{x="1"} 4
penstock_up 1

penstock_request_duration_seconds_bucket{model="m",le="+Inf"} 12 1700000000000
"""


def read(text: str, *names: str) -> list[tuple[str, dict[str, str], float]]:
    return [(sample.name, sample.labels, sample.value) for sample in parse(text, names)]


def reference(text: str, *names: str) -> list[tuple[str, dict[str, str], float]]:
    families = text_string_to_metric_families(text)
    found = [(s.name, dict(s.labels), s.value) for family in families for s in family.samples]
    return [item for item in found if item[0] in names]


def test_reads_what_the_reference_reads() -> None:
    names = ("penstock_requests_total", "penstock_up", "penstock_request_duration_seconds_bucket")
    assert sorted(read(TEXT, *names), key=str) == sorted(reference(TEXT, *names), key=str)
    assert len(read(TEXT, *names)) == 5


def test_other_metrics_are_not_looked_at() -> None:
    assert read('broken{x="1" 4\npenstock_up 1\n', "penstock_up") == [("penstock_up", {}, 1.0)]


@pytest.mark.parametrize(
    "line",
    [
        'penstock_up{x="1" 4',
        "penstock_up{x=1} 4",
        'penstock_up{x="1"}',
        'penstock_up{x="1"} four',
        'penstock_up{"x"} 4',
        "<html>",
    ],
)
def test_a_line_that_is_none_is_told(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read(f"penstock_up 1\n{line}\n", "penstock_up")


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(alphabet='ab"\\\n{},= é', max_size=8), max_size=3))
def test_any_label_value_survives(labels: dict[str, str]) -> None:
    escaped = {k: v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for k, v in sorted(labels.items())}
    inner = ",".join(f'{k}="{v}"' for k, v in escaped.items())
    assert read(f"up{{{inner}}} 1\n", "up") == [("up", labels, 1.0)]
