"""Benchmarks: what Penstock is measured against, and how."""
