"""A gRPC server on grpcio's core, without grpcio's Python server on top of it.

That one hands each call from thread to thread four times and waits in one of them for the client to send. Here one
thread takes what the core has ready and answers at once what it can; nothing that waits holds a thread. It costs
half the CPU a call (docs/adr/0018). What is used of grpcio lies in its private module cygrpc, and only this file
knows it; so grpcio's version is bounded, and the tests of every kind of call speak to this file's server.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import grpc
from grpc._cython import cygrpc as core  # type: ignore[attr-defined]

from penstock_runtime.log import event, origin
from penstock_runtime.server.grpc.codes import OK, Status

logger = logging.getLogger(__name__)

Metadata = Sequence[tuple[str, str | bytes]]
# A certificate with its chain, and its private key, in PEM.
Pair = tuple[bytes, bytes]

# How often calls are looked at whose message does not come, seconds.
_SWEEP_SECONDS = 1.0
# Calls that the core may hand out before it is asked for more: what it still holds when it shuts down it cancels.
_EXPECTED = 64
# How much sooner than here a client may see its deadline pass, seconds.
_AHEAD_SECONDS = 0.02
# A deadline that has passed: what has come is wanted, and no waiting.
_AT_ONCE = 0.0
# Events of one turn. A call has about four.
_MOST_EVENTS = 256
_ARRIVAL = "arrival"
_SHUTDOWN = "shutdown"
_NOTHING = core.CompletionType.queue_timeout


class Call:
    """One call. Its methods may be called from any thread, but by one at a time; what it calls is said with each."""

    __slots__ = (
        "_call", "_ended", "_loop", "_opened", "_task", "at_end", "began", "deadline", "gone", "metadata", "method",
    )  # fmt: skip

    def __init__(
        self, arrival: Any, loop: asyncio.AbstractEventLoop, at_end: Callable[[Callable[[], None]], object]
    ) -> None:
        """Take over the call that has arrived. `at_end`, in the server's thread: see Server.at_end."""
        self.at_end = at_end
        self.began = time.perf_counter()
        self.method: bytes = arrival.call_details.method
        self.deadline: float = arrival.call_details.deadline
        # What the client sent along; binary values (`-bin`) are bytes.
        self.metadata: Metadata = arrival.invocation_metadata
        self.gone = False
        self._call = arrival.call
        self._loop = loop
        self._opened = self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._call.start_server_batch((core.ReceiveCloseOnServerOperation(0),), self._closed)

    @property
    def remaining(self) -> float:
        """Seconds until the client's deadline; infinite if it has none."""
        return self.deadline - time.time()

    @property
    def late(self) -> bool:
        """Whether the client's deadline has passed, for it.

        When it has gone, its clock was ahead of what it looks like from here by the time that its call took to come.
        """
        return self.remaining <= (_AHEAD_SECONDS if self.gone else 0)

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Have `then` called, in the server's thread, with the next message: None if there is none to come."""

        def received(done: Any) -> None:
            # The core has ended the call itself, since the client has gone, or its message is too large.
            self.gone = self.gone or not done.success
            then(done.batch_operations[0].message())

        self._call.start_server_batch((core.ReceiveMessageOperation(0),), received)

    def finish(
        self,
        message: bytes | None = None,
        status: Status = OK,
        metadata: Metadata = (),
        trailing: Metadata | None = None,
    ) -> None:
        """End the call, with an answer if there is one, and with `metadata` before and `trailing` after it.

        Nothing happens if it has ended or the client has gone.
        """
        if self._ended or self.gone:
            return
        self._ended = True
        operations = [core.SendStatusFromServerOperation(trailing, status.code, status.details, 0)]
        if not self._opened:
            operations.append(core.SendInitialMetadataOperation(metadata, 0))
        if message is not None:
            operations.append(core.SendMessageOperation(message, 0))
        self._call.start_server_batch(operations, _nothing)

    def cancel(self) -> None:
        """Break the call off."""
        self._call.cancel()

    def spawn(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine that `make` returns on the event loop; it is cancelled if the client goes while it runs.

        Raises RuntimeError if the event loop is closed.
        """
        self._loop.call_soon_threadsafe(self._begin, make)

    def tell(self, function: Callable[..., object], *args: object) -> None:
        """Have `function` called on the event loop; nothing happens if that is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    # On the event loop:

    def _begin(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = self._loop.create_task(make())

    def abandon(self) -> None:
        """Cancel what was spawned, which is to end the call; break it off if nothing was."""
        if self._task is None:
            self.cancel()
        else:
            self._task.cancel()

    async def next(self) -> bytes | None:
        """Return the next message of a stream, None at its end."""
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        self.receive(lambda message: self._resolve(future, message))
        return await future

    async def send(self, message: bytes) -> None:
        """Send one message of a stream, and wait until the network has taken it."""
        future: asyncio.Future[None] = self._loop.create_future()
        operations = [core.SendMessageOperation(message, 0)]
        if not self._opened:
            self._opened = True
            operations.append(core.SendInitialMetadataOperation((), 0))
        self._call.start_server_batch(operations, lambda _: self._resolve(future, None))
        await future

    # In the server's thread:

    def _resolve(self, future: asyncio.Future[Any], result: object) -> None:
        def resolve() -> None:
            if not future.done():
                future.set_result(result)

        self.tell(resolve)

    def _closed(self, done: Any) -> None:
        if done.batch_operations[0].cancelled():
            self.gone = True
            if self._task is not None:
                self.tell(self._task.cancel)


def _credentials(pair: Callable[[], Pair]) -> Any:
    """Return what the core shows the newest pair by; a handshake that is under way goes on with its own."""
    shown = pair()

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        found = pair()
        if found == shown:
            return None
        shown = found
        return _configuration(found)

    return core.server_credentials_ssl_dynamic_cert_config(_configuration(shown), newest, False)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    certificate, key = pair
    return grpc.ssl_server_certificate_configuration([(key, certificate)])


def _nothing(_: object) -> None:
    """Nobody waits for it."""


class Server:
    """One port. `take` is called with each call, in the server's thread, and must not wait for anything."""

    def __init__(
        self, address: str, options: Sequence[tuple[str, int]], pair: Callable[[], Pair] | None = None
    ) -> None:
        """Bind; `port` is 0 if that cannot be done. Nothing is answered before `start`.

        `pair`: what TLS is spoken with, asked for with each handshake, in threads of the core's; None: no TLS.
        """
        self._queue = core.CompletionQueue()
        self._server = core.Server(options, False)
        self._server.register_completion_queue(self._queue)
        secured = () if pair is None else (_credentials(pair),)
        self.port: int = self._server.add_http2_port(address.encode(), *secured)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._at_end: list[Callable[[], None]] = []
        self.ended = threading.Event()

    def start(self, take: Callable[[Call], None], sweep: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Serve from now on; `sweep` is called about once a second, in the server's thread as well."""
        self._server.start()
        for _ in range(_EXPECTED):
            self._expect()
        self._thread = threading.Thread(target=self._serve, args=(take, sweep, loop), name="grpc", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more calls, and send clients elsewhere; `ended` is set once the last one has ended."""
        if not self._stopping:
            self._stopping = True
            self._server.shutdown(self._queue, _SHUTDOWN)

    def close(self) -> None:
        """Break off whatever is left, and let go of the port."""
        if self._thread is None:
            # The core can only be shut down once it was started.
            self._server.start()
            self._thread = threading.Thread(target=self._drain, name="grpc", daemon=True)
            self._thread.start()
        self.stop()
        self._server.cancel_all_calls()
        self._thread.join(_SWEEP_SECONDS)

    def at_end(self, call: Callable[[], None]) -> None:
        """Have `call` called once all has been worked on that has come by now; in the server's thread."""
        self._at_end.append(call)

    def _end_turn(self) -> None:
        calls, self._at_end = self._at_end, []
        for call in calls:
            call()

    def _expect(self) -> None:
        self._server.request_call(self._queue, self._queue, _ARRIVAL)

    def _serve(self, take: Callable[[Call], None], sweep: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        swept = time.time()
        events = 0
        while True:
            done = self._queue.poll(_AT_ONCE if self._at_end else swept + _SWEEP_SECONDS)
            try:
                events = events + 1 if self._at_end else 0
                if self._at_end and (done.completion_type == _NOTHING or events > _MOST_EVENTS):
                    events = 0
                    self._end_turn()
                    if done.completion_type == _NOTHING:
                        continue
                if done.completion_type == _NOTHING or time.time() > swept + _SWEEP_SECONDS:
                    swept = time.time()
                    sweep()
                if done.completion_type == _NOTHING:
                    continue
                if done.tag is _SHUTDOWN:
                    break
                if done.tag is not _ARRIVAL:
                    done.tag(done)
                elif done.success:
                    self._expect()
                    take(Call(done, loop, self.at_end))
            except Exception as error:  # noqa: BLE001 - one call's failure must not end the service of all
                event(logger, "unexpected failure", level=logging.ERROR, error=type(error).__name__,
                      where=origin(error))  # fmt: skip
            finally:
                # The core does not let go of a call that is referred to.
                del done
        self._drain()

    def _drain(self) -> None:
        # What had been started before the last call ended is ready by now.
        while self._queue.poll(time.time() + 0.05).completion_type != _NOTHING:
            pass
        self._server.destroy()
        self.ended.set()
