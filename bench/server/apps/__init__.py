"""The servers that are measured. Each runs as a process of its own, in an environment of its own."""
