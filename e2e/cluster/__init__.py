"""A real Kubernetes cluster from nothing, for tests and the demo; the commands are the files beside this one.

Only the standard library is used: this runs before the project's own environment exists.
"""
