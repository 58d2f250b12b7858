"""What tests of forwarding share: telling a server, asking it, and targets that are ended with the test."""

from __future__ import annotations

from typing import Any

from tests.unit.runtime.conftest import StartStub
from tests.unit.runtime.grpc_stub import Behaviour, Stub
from tests.unit.runtime.process import Reply, Server, call
from tests.unit.runtime.scrape import sample
from tests.unit.runtime.targets import Script, Target

NOWHERE = "http://127.0.0.1:9"
NONE = {"ok": 0, "client_error": 0, "server_error": 0, "rejected": 0, "timeout": 0}


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.http_port}"


def where(server: Server) -> dict[str, str]:
    """Return where the server is to be found over HTTP and gRPC."""
    return {"to": url(server), "to_grpc": f"127.0.0.1:{server.grpc_port}"}


def tell(server: Server, **setting: object) -> Reply:
    return call(server.admin_port, "PUT", "/v2/forward", setting)


def told(server: Server) -> dict[str, Any]:
    state: dict[str, Any] = call(server.admin_port, "GET", "/v2/forward").json
    return state


def forwarded(server: Server) -> dict[str, float]:
    return {name: sample(server, "penstock_forwarded_total", result=name)
            for name in ("forwarded", "fallback", "timeout")}  # fmt: skip


def start_target(targets: list[Target], script: Script, **more: Any) -> Target:
    targets.append(Target(script, **more))
    return targets[-1]


def tell_stub(server: Server, start_stub: StartStub, behaviour: Behaviour | None = None, **setting: object) -> Stub:
    """Start a target that behaves so (None: it hangs), and have all requests over gRPC go there."""
    stub = start_stub(behaviour)
    assert tell(server, **{"to": NOWHERE, "to_grpc": stub.address, "share": 1, **setting}).status == 200
    return stub


def never(*_: object) -> bool:
    return True
