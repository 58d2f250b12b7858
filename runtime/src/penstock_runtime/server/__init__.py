"""The serving process: HTTP, metrics, feedback and its life from start to drain."""
