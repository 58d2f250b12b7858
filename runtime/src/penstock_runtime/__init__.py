"""The model server of Penstock: serves a model, measures it, and fetches its files."""

__version__ = "0.1.0"
