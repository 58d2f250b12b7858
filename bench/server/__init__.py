"""Penstock's model server beside others, on one core, in one run: `make bench-server`."""
