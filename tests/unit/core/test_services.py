"""The Services over model pods: what they lead to, and that a revision without gRPC has the Service it always had."""

from __future__ import annotations

from penstock.core.render import Owner
from penstock.core.routing import selector, service

OWNER = Owner("fraud", "ml", "uid")
HTTP = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
GRPC = {"name": "grpc", "port": 9000, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"}
ADMIN = {"name": "admin", "port": 9091, "targetPort": "admin", "protocol": "TCP"}


def ports(**pod_ports: int) -> object:
    """Return the ports of the Service over pods with these."""
    return service(OWNER, "fraud", "route", selector("fraud", None), pod_ports)["spec"]["ports"]


def test_a_service_has_the_ports_that_the_pods_have() -> None:
    assert ports(http=8080, grpc=9000, metrics=9090, admin=9091) == [HTTP, GRPC, ADMIN]
    assert ports(http=8080, metrics=9090, admin=9091) == [HTTP, ADMIN]
    assert ports(http=8000) == [HTTP]


def test_a_service_leads_to_whatever_number_the_pods_port_has() -> None:
    assert ports(http=8000, grpc=8001) == [HTTP, GRPC]
