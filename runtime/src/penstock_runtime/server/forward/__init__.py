"""Forwarding: an exact share of a server's requests is answered by another revision."""
