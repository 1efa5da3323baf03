"""Where calls of plain functions wait for threads: by rank, and each function has no more than its share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from easyremote.inference.batcher import Batcher

if TYPE_CHECKING:
    from easyremote.inference.jobs import Job

__all__ = ["Shares"]

_ANY_BYTES = 1 << 62


class Shares:
    """By priority and deadline, one call at a time, and bounded by function.

    At most `share` calls of one function are out at once; while half of the threads are busy, only one. So calls that
    never end, of however few functions, leave threads for the calls of others.

    Parameters
    ----------
    expired : callable
        Takes each job whose deadline passed while it waited.
    now_ms : callable
        The wall clock, ms.
    threads : int
        Most calls out at once.
    share : int
        Of them, most calls of one function.
    """

    def __init__(
        self, expired: Callable[[Job], None], now_ms: Callable[[], float], *, threads: int, share: int
    ) -> None:
        self._batcher: Batcher[Job] = Batcher(max_items=1, max_bytes=_ANY_BYTES)
        self._expired = expired
        self._now_ms = now_ms
        self._threads = threads
        self._share = share
        self._out: Counter[str] = Counter()
        self._total = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, job: Job) -> bool:
        """Add a job."""
        call = job.call
        with self._changed:
            if self._closed:
                return False
            self._batcher.put(
                job, job.arrived_ms, priority=call.priority, deadline_ms=call.deadline_ms, key=call.function
            )
            self._changed.notify()
        return True

    def take(self) -> list[Job] | None:
        """Wait for a job whose function may have one more, and return the first in rank; tell what is too late."""
        while True:
            with self._changed:
                self._changed.wait_for(self._may_take)
                if not len(self._batcher):
                    return None
                taken = self._batcher.take(self._now_ms(), passed_over=self._full())
                for job in taken.batch:
                    self._out[job.call.function] += 1
                    self._total += 1
            for job in taken.expired:
                self._expired(job)
            if taken.batch:
                return taken.batch

    def done(self, jobs: Sequence[Job]) -> None:
        """Hear that a call which was taken is done, or never will be."""
        with self._changed:
            for job in jobs:
                name = job.call.function
                self._out[name] -= 1
                self._total -= 1
                if not self._out[name]:
                    del self._out[name]
            self._changed.notify()

    def expire(self) -> None:
        """Tell what is too late, though no thread may be free to take it."""
        with self._changed:
            expired = self._batcher.expire(self._now_ms())
        for job in expired:
            self._expired(job)

    def close(self) -> None:
        """Take no more in; what waits is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _full(self) -> list[str]:
        """Return the functions of which something waits and none may be taken now."""
        most = self._share if 2 * self._total < self._threads else 1
        return [name for name, out in self._out.items() if out >= most and name in self._batcher.keys]

    def _may_take(self) -> bool:
        if not len(self._batcher):
            return self._closed
        return self._total < self._threads and len(self._full()) < len(self._batcher.keys)
