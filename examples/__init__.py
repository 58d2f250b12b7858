"""Runnable examples: train a model, export it to ONNX, deploy it with Penstock."""
