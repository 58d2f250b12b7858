"""Penstock: an operator that moves traffic onto a new model only as fast as the evidence allows."""

__version__ = "0.1.0"
