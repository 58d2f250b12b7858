"""ONNX files read without ONNX: what is in them, and what must not be loaded."""
