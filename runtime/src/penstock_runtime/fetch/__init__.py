"""Bringing a model's files from where they are kept into a pod, whole and verified."""
