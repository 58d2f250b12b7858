"""Samples summed by function."""

from __future__ import annotations

from bench.server.profile import Spent, sum_up

STACKS = """\
main (run.py:1);serve (app.py:10);decode (json.py:3) 6
main (run.py:1);serve (app.py:12) 2

main (run.py:1);serve (app.py:14);decode (json.py:9) 2
"""


def test_functions_by_their_own_share_whatever_the_line() -> None:
    assert sum_up(STACKS.splitlines()) == [
        Spent("decode (json.py)", 0.8, 0.8),
        Spent("serve (app.py)", 0.2, 1.0),
    ]


def test_no_samples() -> None:
    assert sum_up([]) == []
