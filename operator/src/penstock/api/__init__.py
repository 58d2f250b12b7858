"""The custom resources: frozen models the one source of CRDs, reference pages and parsing."""
