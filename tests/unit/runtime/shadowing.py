"""What tests of shadowing share: telling a server, asking it, and two of them."""

from __future__ import annotations

from typing import Any

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.grpc_client import INFER, Client
from tests.unit.runtime.process import DEADLINE, Reply, Server, call
from tests.unit.runtime.scrape import sample


def shadow(server: Server, **setting: object) -> Reply:
    return call(server.admin_port, "PUT", "/v2/shadow", setting)


def state(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = call(server.admin_port, "GET", "/v2/shadow").json
    return found


def pairs(server: Server) -> dict[str, float]:
    return {result: sample(server, "penstock_shadow_pairs_total", result=result)
            for result in ("agree", "disagree", "error")}  # fmt: skip


def start_pair(start_server: Start, stable: str, canary: str) -> tuple[Server, Server]:
    servers = (start_server(stable, PENSTOCK_REVISION="stable"), start_server(canary, PENSTOCK_REVISION="canary"))
    return servers[0].ready(), servers[1].ready()


def ask(server: Server, *requests: pb.ModelInferRequest, **metadata: str) -> None:
    """Make calls over gRPC that are answered, with whatever message."""
    with Client(server.grpc_port) as client:
        method = client.channel.unary_unary(INFER)
        for request in requests:
            method(request.SerializeToString(), metadata=tuple(metadata.items()), timeout=DEADLINE)
