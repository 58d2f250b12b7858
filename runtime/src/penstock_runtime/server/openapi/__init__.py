"""The OpenAPI documents of the ports, generated from one description, the one below."""
