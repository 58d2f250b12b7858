"""ONNX Runtime: finding, loading, warming and running a model."""
