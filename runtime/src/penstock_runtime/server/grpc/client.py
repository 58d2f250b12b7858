"""A gRPC client of raw bytes, on the event loop: one method of one call in, one message out, nothing parsed.

It is made of grpcio's public asyncio client. Measured beside a channel in threads and grpcio's own core, it takes as
little CPU a call as the core and half of what the threads take (docs/adr/0018).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from grpc import ChannelConnectivity as State
from grpc import StatusCode, aio

Metadata = Sequence[tuple[str, str | bytes]]

# Calls under way at once.
MAX_CALLS = 256
# Seconds that a call waits for a connection. Within a cluster one takes a millisecond.
CONNECT_SECONDS = 2.0
# Seconds after which one that failed is tried again, at most.
LONGEST_PAUSE = 10.0
# A connection that failed is tried again after a second, later after two, and names are then resolved anew. A peer that
# has vanished is found by pings, of which servers by default forbid more than two within one call.
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class Answer(NamedTuple):
    """How a call ended. `message` is None unless `code` is OK; binary values of metadata (`-bin`) are bytes.

    `sent`: whether there was a connection to send it on; if not, no server has seen it.
    """

    code: StatusCode
    details: str = ""
    message: bytes | None = None
    initial: Metadata = ()
    trailing: Metadata = ()
    sent: bool = True


class Client:
    """Unary calls to one server, by all the addresses that its name has, without TLS.

    It connects with the first call, and again whenever a connection is lost. All methods are to be called from the
    event loop it was made on.
    """

    def __init__(
        self,
        address: str,
        max_answer_bytes: int,
        *,
        max_calls: int = MAX_CALLS,
        connect_seconds: float = CONNECT_SECONDS,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        """Call the server at `address`, host:port with an IPv6 host in brackets; nothing is connected yet.

        Answers have at most `max_answer_bytes`; more than `max_calls` at once are refused, and so is a call that
        finds no connection within `connect_seconds`. `longest_pause`: seconds between two tries to connect, at most.
        """
        options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", max_answer_bytes),
            ("grpc.max_reconnect_backoff_ms", int(longest_pause * 1000)),
        )
        self._channel = aio.insecure_channel(address, options)
        self._max_calls = max_calls
        self._connect_seconds = connect_seconds
        self._methods: dict[str, Any] = {}
        self._calls: set[aio.UnaryUnaryCall[bytes, bytes]] = set()
        self._waiting = 0
        self._connecting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def calls(self) -> int:
        """Calls that are under way."""
        return len(self._calls) + self._waiting

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._closing is None and self._channel.get_state() is State.READY

    async def call(self, method: str, message: bytes, metadata: Metadata, seconds: float) -> Answer:
        """Call `method`, "/package.Service/Method", with `metadata` (no reserved names) and return how it ended.

        It never raises for what happens to the call: UNAVAILABLE is an answer that the server gives, or that there is
        no connection to it, none any more, or that `close` was called; RESOURCE_EXHAUSTED that too many calls are
        under way, DEADLINE_EXCEEDED that `seconds` are over, which the server is told of. Cancelled, the call is
        cancelled at the server as well.
        """
        if self.calls >= self._max_calls:
            return Answer(StatusCode.RESOURCE_EXHAUSTED, "too many calls are under way", sent=False)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        connected = await self._connect(min(self._connect_seconds, seconds))
        if (remaining := deadline - loop.time()) <= 0:
            return Answer(StatusCode.DEADLINE_EXCEEDED, "the time was over before the call began", sent=False)
        if not connected:
            return Answer(StatusCode.UNAVAILABLE, "there is no connection to the server", sent=False)
        call = self._method(method)(message, timeout=remaining, metadata=metadata)
        self._calls.add(call)
        try:
            answer = await call
            return Answer(StatusCode.OK, "", answer, _pairs(await call.initial_metadata()),
                          _pairs(await call.trailing_metadata()))  # fmt: skip
        except aio.AioRpcError as error:
            return Answer(error.code(), error.details() or "", None, _pairs(error.initial_metadata()),
                          _pairs(error.trailing_metadata()))  # fmt: skip
        except asyncio.CancelledError:
            # Else it is the call that was cancelled, and not who waits for it.
            if self._closing is None or _cancelled():
                raise
            return Answer(StatusCode.UNAVAILABLE, "the connection was closed")
        finally:
            self._calls.discard(call)

    def close(self) -> None:
        """Break off what is under way and close the connections; later calls find none."""
        if self._closing is not None:
            return
        for call in list(self._calls):
            call.cancel()
        self._closing = asyncio.get_running_loop().create_task(self._channel.close())

    def _method(self, name: str) -> Any:
        method = self._methods.get(name)
        if method is None:
            if len(self._methods) >= self._max_calls:
                self._methods.clear()
            method = self._methods[name] = self._channel.unary_unary(name)
        return method

    async def _connect(self, seconds: float) -> bool:
        """Return whether there is a connection, after waiting for it at most `seconds`."""
        if self._closing is not None:
            return False
        if self._channel.get_state(try_to_connect=True) is State.READY:
            return True
        if self._connecting is None:
            # Of its own, since it must not be cancelled with one who waits for it.
            self._connecting = asyncio.get_running_loop().create_task(self._watch())
        self._waiting += 1
        try:
            await asyncio.wait((self._connecting,), timeout=seconds)
        finally:
            self._waiting -= 1
        return self.connected

    async def _watch(self) -> None:
        """Return once the connection stands or has failed."""
        try:
            while (state := self._channel.get_state(try_to_connect=True)) in (State.IDLE, State.CONNECTING):
                await self._channel.wait_for_state_change(state)
        except (RuntimeError, aio.UsageError):
            return  # it is closed
        finally:
            self._connecting = None


def _pairs(metadata: Any) -> Metadata:
    return tuple(metadata or ())


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
