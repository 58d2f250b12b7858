"""Handwritten digits: six versions of a model, of which two are good."""
