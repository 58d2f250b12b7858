"""Shadowing: copies of requests go to another revision, whose answers are compared and thrown away."""
