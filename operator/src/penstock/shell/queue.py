"""The keyed work queue between what happened in the cluster and the reconciles it causes.

After client-go's: a key waits at most once, is never worked on twice at a time, and comes back when it was added
while being worked on. Plain state plus a timer: tests drive it in virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)


class Handle(Protocol):
    """A call that was asked for and can be taken back."""

    def cancel(self) -> None:
        """Do not call."""


class Timer(Protocol):
    """The part of an event loop that knows about time."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Handle:
        """Call back at a time of `time()`."""


class ShutDown(Exception):  # noqa: N818
    """The queue gives out no more keys."""


class WorkQueue(Generic[K]):
    """Keys to be worked on. All calls come from the event loop's thread."""

    def __init__(
        self,
        timer: Timer | None = None,
        *,
        base: float = 0.5,
        cap: float = 300.0,
        gather: float = 0.1,
        jitter: Callable[[], float] = random.random,
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`base` and `cap` in seconds bound the back-off of `retry`; `gather` is the moment of `add_soon`.

        `on_wait` is told how long each key waited for a worker.
        """
        self._timer = timer or asyncio.get_running_loop()
        self._base = base
        self._cap = cap
        self._gather = gather
        self._jitter = jitter
        self._on_wait = on_wait
        self._waiting: deque[K] = deque()
        self._since: dict[K, float] = {}
        """When each key that waits was added."""
        self._running: set[K] = set()
        self._dirty: dict[K, float] = {}
        """Keys added while running, and when."""
        self._later: dict[K, tuple[float, Handle]] = {}
        self._failures: dict[K, tuple[int, float]] = {}
        """How often each key failed in a row, and when its back-off ends."""
        self._getters: deque[asyncio.Future[None]] = deque()
        self._down = False

    def __len__(self) -> int:
        """Keys that wait now; not those that are due later."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Keys being worked on."""
        return len(self._running)

    @property
    def closed(self) -> bool:
        """No more keys are given out."""
        return self._down

    def add(self, key: K) -> None:
        """Work on the key as soon as possible."""
        if self._down or key in self._since:
            return
        if key in self._running:
            self._dirty.setdefault(key, self._timer.time())
            return
        self._since[key] = self._timer.time()
        self._waiting.append(key)
        self._wake_one()

    def add_soon(self, key: K) -> None:
        """Work on the key in a moment: events come in bursts, and one run answers all of them."""
        self.add_after(key, self._gather)

    def add_after(self, key: K, seconds: float) -> None:
        """Work on the key in so many seconds. Of several such wishes the earliest wins, the others are dropped."""
        if self._down:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._timer.time() + seconds
        if key in self._later:
            if self._later[key][0] <= due:
                return
            self._later[key][1].cancel()
        self._later[key] = (due, self._timer.call_at(due, lambda: self._due(key)))

    def retry(self, key: K) -> float:
        """Work on the key after a back-off that doubles with each retry until `forget`; returns its seconds."""
        now = self._timer.time()
        failures, ends = self._failures.get(key, (0, now))
        # A run that something else caused before the back-off was over says nothing new about how long to wait.
        failures += ends <= now
        # Beyond the exponent that reaches the cap only the number would grow.
        delay = min(self._cap, self._base * 2.0 ** min(failures - 1, 32))
        delay *= 0.75 + 0.5 * self._jitter()
        self._failures[key] = (failures, now + delay)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key is well: its next back-off starts small."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """The key is gone for good: take back what is due later, and its failures."""
        self.forget(key)
        self._take_back(key)

    async def get(self) -> K:
        """The next key, once there is one; `done` has to follow. ShutDown when no more will come."""
        while not self._waiting or self._down:
            if self._down:
                raise ShutDown
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter in self._getters:
                    self._getters.remove(getter)
                elif self._waiting:
                    # The wake-up was meant for this one: hand it on.
                    self._wake_one()
                raise
        key = self._waiting.popleft()
        self._on_wait(self._timer.time() - self._since.pop(key))
        # A run now answers whatever was due later: it says itself when it wants to run again.
        self._take_back(key)
        self._running.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on a key from `get` has ended."""
        self._running.discard(key)
        if self._dirty.pop(key, None) is not None:
            self.add(key)

    def shut_down(self) -> None:
        """Give out no more keys; those being worked on may finish."""
        self._down = True
        for key in list(self._later):
            self._take_back(key)
        while self._getters:
            self._wake_one()

    def _due(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _take_back(self, key: K) -> None:
        if key in self._later:
            self._later.pop(key)[1].cancel()

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
