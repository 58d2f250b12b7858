"""What the cluster's add-ons are called, and how they are reached from inside."""

from __future__ import annotations

from e2e.tests.installation import Prometheus

GATEWAY, GATEWAY_NAMESPACE = "public", "gateway"
PROMETHEUS = Prometheus("monitoring", "prometheus", "http://prometheus.monitoring.svc:9090")
SCRAPE_SECONDS = 5
STORES = "models"
"""Namespace of the file server and the S3 server."""
FILES_URL = "http://files.models.svc"
S3_SECRET = "s3-credentials"
S3_BUCKET = "models"
ADDONS = ("gateway", "prometheus", "files", "s3")
