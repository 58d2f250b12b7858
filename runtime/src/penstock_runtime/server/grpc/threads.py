"""The threads that calls are worked on in: few that compute, and more while some of them only wait.

grpcio gives a thread to each call from its first byte on. So a thread may be waiting for a client that sends
slowly, or for a run of a model elsewhere; neither may keep other calls from being served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

# Calls wait and no thread has taken one for so long: those that there are must be stuck.
STALL_SECONDS = 0.05
# How long a thread beyond the usual number stays without work.
LINGER_SECONDS = 10.0


class Call:
    """One call, from the arrival of its headers until a thread is done with it. `refused`: it is not worked on."""

    __slots__ = ("_event", "_group", "began", "received", "refused")

    def __init__(self, group: set[Call], refused: bool = False) -> None:
        """Be one of `group`, those under way together, unless `refused`."""
        self.began = time.perf_counter()
        self.received = False
        self.refused = refused
        self._group = group
        self._event: Any = None
        if not refused:
            group.add(self)

    def arrived_as(self, event: Any) -> None:
        """Remember grpcio's own object for the call."""
        self._event = event

    def cancel(self) -> None:
        """End the call for its client, whatever it waits for."""
        event = self._event
        if event is not None:
            event.call.cancel()

    @property
    def expired(self) -> bool:
        """Whether the client's deadline has passed."""
        event = self._event
        return event is not None and bool(event.call_details.deadline <= time.time())

    def left(self) -> None:
        """The thread is done with it: it was answered, or its client went before it could be."""
        self._group.discard(self)


class Threads:
    """`usual` threads, and up to `most` while some of them wait or are stuck."""

    def __init__(self, name: str, usual: int, most: int) -> None:
        """Start nothing yet."""
        self._name = name
        self._usual = usual
        self._most = most
        self._calls: SimpleQueue[tuple[Call, Callable[..., object], tuple[Any, ...]] | None] = SimpleQueue()
        # Guards the two numbers.
        self._lock = threading.Lock()
        self._count = 0
        self._waiting = 0
        self._taken = time.monotonic()

    def start(self) -> None:
        """Start the usual threads."""
        for _ in range(self._usual):
            self._add(None)

    def put(self, call: Call, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Have a thread call `function` for `call`, soon."""
        self._calls.put((call, function, args))
        self.relieve()

    def relieve(self) -> None:
        """Add a thread if calls wait while no thread takes any."""
        if not self._calls.empty() and time.monotonic() - self._taken > STALL_SECONDS:
            with self._lock:
                grow = self._count < self._most
            if grow:
                self._taken = time.monotonic()
                self._add(LINGER_SECONDS)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the calling thread only waits, another one may take its place."""
        with self._lock:
            self._waiting += 1
            grow = self._count - self._waiting < self._usual and self._count < self._most
        if grow:
            self._add(LINGER_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Let the threads end when they have done what they are at."""
        with self._lock:
            count = self._count
        for _ in range(count):
            self._calls.put(None)

    def _add(self, linger: float | None) -> None:
        with self._lock:
            self._count += 1
        # A daemon: a run that does not end must not keep the process.
        threading.Thread(target=self._work, args=(linger,), name=self._name, daemon=True).start()

    def _work(self, linger: float | None) -> None:
        while True:
            try:
                task = self._calls.get(timeout=linger)
            except Empty:
                task = None
            if task is None:
                with self._lock:
                    self._count -= 1
                return
            self._taken = time.monotonic()
            call, function, args = task
            try:
                function(*args)
            finally:
                call.left()
            # Or this thread would keep the call's message until the next one comes.
            del task, call, function, args


class Arrivals:
    """What grpcio takes for its thread pool: calls go to the threads that are theirs.

    grpcio submits a call right after it has asked for its handler, in the same thread; whoever gives the handler
    sets `coming`. A refused call is answered on the spot: that takes no waiting, and where calls are too many their
    refusals must not wait, too.
    """

    def __init__(self) -> None:
        """Nothing is coming yet."""
        self.coming: tuple[Threads, Call] | None = None

    def submit(self, function: Callable[..., object], /, *args: Any) -> None:
        """Have `function` called; grpcio's own object for the call is the second of `args`."""
        if self.coming is None:
            raise RuntimeError("a call came without a handler")
        threads, call = self.coming
        self.coming = None
        if call.refused:
            function(*args)
            return
        call.arrived_as(args[1])
        threads.put(call, function, args)
