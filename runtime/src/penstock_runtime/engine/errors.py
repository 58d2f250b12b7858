"""Failures of loading a model."""

from __future__ import annotations


class ModelLoadError(Exception):
    """The model cannot be served; the message says why and what to do, for people."""
