"""Sends real rows to a served model at a given rate, and their true labels as feedback later; counts what came back.

`python -m e2e.load --help` for the command, `e2e.load.process.LoadProcess` for tests and the demo.
"""
