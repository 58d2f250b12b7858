"""The Open Inference Protocol over gRPC: its messages, made from inference.proto, and tensors in and out of them."""
