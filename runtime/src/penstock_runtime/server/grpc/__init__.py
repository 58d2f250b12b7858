"""The data port over gRPC: inference, health and reflection, served by grpcio in threads."""
