"""Where the answer to a call stands, by the call's id, for the last hundred thousands of them in constant memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["PlaceTable"]

_KEPT = 131_072
"""Two generations of as many: 8 MiB, whatever the ids' length."""


class _Generation:
    """An open-addressed table that is hardly more than half full; of an id only the hash is kept."""

    __slots__ = ("count", "hashes", "mask", "places", "read_hash", "read_place")

    def __init__(self, slots: int) -> None:
        self.mask = slots - 1
        self.count = 0
        self.hashes: NDArray[np.int64] = np.empty(slots, np.int64)
        self.places: NDArray[np.int64] = np.empty(slots, np.int64)  # 0: free; else the place + 1
        self.places.fill(0)  # touches the memory now, so that it does not seem to grow
        self.hashes.fill(0)
        self.read_hash = self.hashes.data  # reads one in a third of the array's own time
        self.read_place = self.places.data

    def put(self, hashes: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        slots = hashes & self.mask
        while len(slots):
            free = self.places[slots] == 0
            ours = free | (self.hashes[slots] == hashes)
            at = slots[ours]
            # The hash before the place: a reader takes a slot with a place for filled.
            self.hashes[at] = hashes[ours]
            self.places[at] = places[ours] + 1
            self.count += len(np.unique(slots[free]))
            left = self.hashes[slots] != hashes  # the slot is another's, of before or of this batch
            hashes, places, slots = hashes[left], places[left], (slots[left] + 1) & self.mask


class PlaceTable:
    """Keeps a number for each of the newest ids. Pure; one thread writes at a time, others may read meanwhile.

    Two ids whose 64-bit hashes are equal share a place, so who reads there compares the id.

    Parameters
    ----------
    kept : int
        At least so many of the newest ids are kept, and up to twice as many; a power of two, and much more than are
        put at once.

    Examples
    --------
    >>> table = PlaceTable(kept=4)
    >>> table.put([b"a", b"b", b"c", b"d"], [0, 1, 2, 3])
    >>> table.get(b"a"), table.get(b"x")
    (0, None)
    >>> table.put([b"e", b"b"], [4, 5])
    >>> table.get(b"a"), table.get(b"b"), table.get(b"e")
    (0, 5, 4)
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        # Replaced as one, so that a reader never misses a generation.
        self._generations = (_Generation(2 * kept), _Generation(2 * kept))

    def put(self, keys: Sequence[bytes], places: Sequence[int]) -> None:
        """Keep places, numbers from 0 to 2^63 - 2, for ids, instead of those that they had."""
        young, before = self._generations
        if young.count >= self._kept:
            young, before = _Generation(2 * self._kept), young
            self._generations = (young, before)
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        young.put(hashes, np.fromiter(places, np.int64, len(keys)))

    def get(self, key: bytes) -> int | None:
        """Return the place of an id, if it is kept."""
        hashed = hash(key)
        for one in self._generations:
            places, slot = one.read_place, hashed & one.mask
            while place := places[slot]:
                if one.read_hash[slot] == hashed:
                    return place - 1
                slot = slot + 1 & one.mask
        return None
