"""Failures of measuring."""

from __future__ import annotations


class BenchError(Exception):
    """The server cannot be measured; the message says why and what to do, for people."""
