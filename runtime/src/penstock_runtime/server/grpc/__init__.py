"""The data port over gRPC: inference, health and reflection, and a client for what goes on to other servers."""

import os

# grpcio's core writes lines of its own to stderr, which is for our log; it looks once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
