"""Which requests are of the share: exact by count, or sticky by a header's value."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b, blake2s

# Small, since a block that is cut at its start or end may be off by a quarter of it: in any row of requests the
# count is off by less than 52, whatever the share and wherever the row begins. Of 20,000 that is 0.26 points.
BLOCK = 100
_WHOLE = 2**64


class Blocks:
    """Takes an exact share of requests, at places that nothing in the traffic can follow.

    Of each block of 100 requests a fixed number is taken, at places drawn by lot; what is left of a fraction
    is carried to the next block. The carry begins at a random point, so that each single request is of the
    share with exactly that probability, also in a process that sees only ten.
    """

    __slots__ = ("_carry", "_left", "_need", "_random", "_share")

    def __init__(self, share: float, draw: Callable[[], float] = random.random) -> None:
        """`share` from 0 to 1; `draw` gives numbers from 0 up to below 1."""
        self._share = share
        self._random = draw
        self._carry = draw()
        self._left = 0
        self._need = 0

    def take(self) -> bool:
        """Return whether the next request is of the share."""
        if self._left == 0:
            self._left = BLOCK
            self._carry += self._share * BLOCK
            self._need = min(int(self._carry), BLOCK)
            self._carry -= self._need
        # As many of those left as are still needed, each with the same chance: every choice of places in the
        # block is equally likely.
        taken = self._random() * self._left < self._need
        self._left -= 1
        self._need -= taken
        return taken


class Sticky:
    """Takes a value or not, always the same; whoever is taken at a share is taken at every larger one."""

    __slots__ = ("_keyed", "_limit")

    def __init__(self, share: float, salt: str) -> None:
        """`share` from 0 to 1 of all values there could be; with another `salt` they are others."""
        self._limit = int(share * _WHOLE)
        self._keyed = blake2s(
            key=blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=32).digest(), digest_size=8
        )

    def take(self, value: bytes) -> bool:
        """Return whether `value` is of the share."""
        hashed = self._keyed.copy()
        hashed.update(value)
        return int.from_bytes(hashed.digest()) < self._limit
