"""Which waiting calls go into the next forward pass: by priority, deadline and likeness, within bounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from easyremote.topics.records import Priority

__all__ = ["AGEING_MS", "Batcher", "Taken"]

J = TypeVar("J")

AGEING_MS = 1_000
"""Waiting that counts as much as one lane of priority, ms."""
_LANES: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}


@dataclass(slots=True)
class Taken(Generic[J]):
    """What `Batcher.take` found: a batch to run together, and what is too late to run at all."""

    batch: list[J] = field(default_factory=list)
    expired: list[J] = field(default_factory=list)


class Batcher(Generic[J]):
    """Holds what waits for one model and gives out batches; it never asks anyone to wait for more to come.

    Time is cut into slices of `ageing_ms`. Of what came in the same slice, high goes before normal before low; each
    slice that a call has come earlier counts as one lane. Of equals the earliest deadline goes first, then who came
    first. So a low call is overtaken by none that came three slices or more after it, however many come.

    Parameters
    ----------
    max_items : int
        Most calls of a batch, >= 1.
    max_bytes : int
        Most bytes of arguments of a batch; a call that is larger goes alone.
    ageing_ms : float
        Length of a slice, ms, > 0.

    Examples
    --------
    >>> batcher = Batcher(max_items=2, max_bytes=100)
    >>> batcher.put("a", 0, priority="low"); batcher.put("b", 1); batcher.put("c", 2, priority="high")
    >>> batcher.take(3).batch, batcher.take(3).batch
    (['c', 'b'], ['a'])
    """

    def __init__(self, *, max_items: int, max_bytes: int, ageing_ms: float = AGEING_MS) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self._ageing_ms = ageing_ms
        # By key, what waits as (rank, deadline, number, bytes, item); the number is unique, so items are not compared.
        self._heaps: dict[Hashable, list[tuple[int, float, int, int, J]]] = {}
        self._came = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(  # a call has these
        self,
        item: J,
        now_ms: float,
        *,
        priority: Priority = "normal",
        deadline_ms: float | None = None,
        size_bytes: int = 0,
        key: Hashable = None,
    ) -> None:
        """Add what came at `now_ms`; only items of the same key are given out together."""
        rank = _LANES[priority] + int(now_ms // self._ageing_ms)
        deadline = math.inf if deadline_ms is None else deadline_ms
        heappush(self._heaps.setdefault(key, []), (rank, deadline, self._came, size_bytes, item))
        self._came += 1
        self._count += 1

    @property
    def keys(self) -> Collection[Hashable]:
        """The keys of which something waits."""
        return self._heaps.keys()

    def take(self, now_ms: float, shared_by: int = 1, passed_over: Collection[Hashable] = ()) -> Taken[J]:
        """Remove and return the next batch, and what was to go before it but has a deadline at or before `now_ms`.

        The batch is empty only if nothing is left but of the keys that are `passed_over`. `shared_by` so many takers
        it is one of: what waits is for all.
        """
        most = min(self.max_items, -(-self._count // shared_by))
        taken: Taken[J] = Taken()
        while len(self._heaps) > len(passed_over) and not taken.batch:
            key = next(iter(self._heaps)) if len(self._heaps) == 1 else self._first_key(passed_over)
            heap = self._heaps[key]
            self._fill(heap, now_ms, taken, most)
            if not heap:
                del self._heaps[key]
        self._count -= len(taken.batch) + len(taken.expired)
        return taken

    def expire(self, now_ms: float) -> list[J]:
        """Remove and return what has a deadline at or before `now_ms`, wherever it stands."""
        expired: list[J] = []
        for key, heap in list(self._heaps.items()):
            late = [item for _, deadline, _, _, item in heap if deadline <= now_ms]
            if not late:
                continue
            expired += late
            heap[:] = [entry for entry in heap if entry[1] > now_ms]
            heapify(heap)
            if not heap:
                del self._heaps[key]
        self._count -= len(expired)
        return expired

    def _first_key(self, passed_over: Collection[Hashable]) -> Hashable:
        return min((key for key in self._heaps if key not in passed_over), key=lambda key: self._heaps[key][0][:3])

    def _fill(self, heap: list[tuple[int, float, int, int, J]], now_ms: float, taken: Taken[J], most: int) -> None:
        room_bytes = self.max_bytes
        while heap and len(taken.batch) < most:
            _, deadline, _, size_bytes, item = heap[0]
            if deadline <= now_ms:
                taken.expired.append(item)
            elif taken.batch and size_bytes > room_bytes:
                return
            else:
                taken.batch.append(item)
                room_bytes -= size_bytes
            heappop(heap)
