"""Which cases a run has."""

from __future__ import annotations

import pytest

from bench.server.__main__ import parse
from bench.server.cases import CASES, EXTRAS, OVERLOAD, PENSTOCK, SHADOW, WORKERS, choose
from bench.server.servers import PROTOCOLS


def test_all_cases_unless_some_are_named() -> None:
    assert choose("") == (list(CASES), frozenset(EXTRAS))


def test_beginnings_of_names_choose_cases() -> None:
    cases, extras = choose("iris-json, over")
    assert [case.id for case in cases] == ["iris-json-64", "iris-json-1"]
    assert extras == {OVERLOAD}
    assert choose("workers shadow") == ([], frozenset((WORKERS, SHADOW)))


def test_help_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = "".join(capsys.readouterr().out.split())
    for name in [*(case.id for case in CASES), *EXTRAS]:
        assert name in shown


def test_a_word_that_names_nothing_is_an_error_that_tells_the_names() -> None:
    with pytest.raises(ValueError, match=r"no case 'resnet'; there are: iris-json-64, "):
        choose("iris resnet")


def test_every_case_is_judged_and_has_a_name_of_its_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.bars
        assert case.servers[0] == PENSTOCK
        assert case.protocol in PROTOCOLS[PENSTOCK]
        assert case.id.endswith(str(case.at_once)) or case.id == "iris-cost"
