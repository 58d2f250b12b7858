"""Prediction ids, and the labels that come back for them."""
