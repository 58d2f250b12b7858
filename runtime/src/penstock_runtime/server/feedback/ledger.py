"""Which predictions have had their feedback: exact within the window, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

_CHUNK_BITS = 4096


@dataclass(slots=True)
class _Chunk:
    newest: int
    bits: bytearray = field(default_factory=lambda: bytearray(_CHUNK_BITS // 8))


class Ledger:
    """A set of (origin, counter) pairs that forgets what is older than a window.

    One bit a prediction, in chunks of 4,096 consecutive ids of one process. At most `max_chunks` are kept
    (32,768 by default: some 25 MB, 134 million predictions); if more were needed, the oldest is dropped and
    everything as old as it counts as expired, so that nothing is ever counted twice.
    """

    def __init__(self, max_chunks: int = 32768) -> None:
        """Start empty."""
        self._max_chunks = max_chunks
        self._chunks: dict[tuple[int, int], _Chunk] = {}
        self._floor = 0
        self._next_sweep = 0.0

    def is_expired(self, issued: int, now: float, window: float) -> bool:
        """Return whether a prediction of time `issued` is too old to take feedback for; `window` in seconds."""
        return issued < now - window or issued <= self._floor

    def has(self, origin: int, counter: int) -> bool:
        """Return whether the prediction has been added."""
        chunk = self._chunks.get((origin, counter // _CHUNK_BITS))
        bit = counter % _CHUNK_BITS
        return chunk is not None and bool(chunk.bits[bit >> 3] & (1 << (bit & 7)))

    def add(self, origin: int, counter: int, issued: int, now: float, window: float) -> None:
        """Remember the prediction until `window` seconds after `issued` have passed."""
        key = (origin, counter // _CHUNK_BITS)
        chunk = self._chunks.get(key)
        if chunk is None:
            self._make_room(now, window)
            chunk = self._chunks[key] = _Chunk(issued)
        chunk.newest = max(chunk.newest, issued)
        bit = counter % _CHUNK_BITS
        chunk.bits[bit >> 3] |= 1 << (bit & 7)

    def _make_room(self, now: float, window: float) -> None:
        full = len(self._chunks) >= self._max_chunks
        if not full and now < self._next_sweep:
            return
        self._next_sweep = now + 60.0
        old = int(now - window)
        for key in [key for key, chunk in self._chunks.items() if chunk.newest < old]:
            del self._chunks[key]
            # Should the window be made longer later, what is forgotten now must stay expired.
            self._floor = max(self._floor, old - 1)
        if len(self._chunks) >= self._max_chunks:
            # A tenth at a time, so that the search for the oldest is rare.
            oldest = sorted(self._chunks, key=lambda key: self._chunks[key].newest)
            for key in oldest[: max(1, self._max_chunks // 10)]:
                self._floor = max(self._floor, self._chunks.pop(key).newest)
