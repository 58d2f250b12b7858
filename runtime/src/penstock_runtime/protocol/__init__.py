"""The Open Inference Protocol (V2) as pure functions: bytes in, tensors out, and back."""
