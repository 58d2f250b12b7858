"""The custom resources: frozen models that are the one source of the CRDs, the reference pages and the parsing."""
