"""A gRPC server of a few lines, on grpcio's public server: it answers as a test tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]


class Stub:
    """Answers every method by `behaviour`, in threads, without one only at `close`; `seen` has each call's metadata."""

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0, host: str = "127.0.0.1") -> None:
        self.seen: list[list[tuple[str, str | bytes]]] = []
        self.entered = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.released = threading.Event()
        self._behaviour = behaviour
        self._server = grpc.server(
            ThreadPoolExecutor(64), handlers=[_All(self._answer)], options=(("grpc.so_reuseport", 0),)
        )
        self.port = self._server.add_insecure_port(f"{host}:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def hang(self) -> None:
        """Wait until `close`; for behaviours."""
        self.released.wait(60)

    def close(self) -> None:
        self.released.set()
        self._server.stop(None).wait(60)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen.append([(key, value) for key, value in context.invocation_metadata()])
        context.add_callback(self._ended)
        self.entered.release()
        if self._behaviour is None:
            self.hang()
            return request
        return self._behaviour(request, context)

    def _ended(self) -> None:
        # Also when all went well; tests that look have a call that hangs.
        self.cancelled.set()


class _All(grpc.GenericRpcHandler):
    def __init__(self, answer: Behaviour) -> None:
        self._answer = answer

    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)
