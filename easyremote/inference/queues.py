"""Where calls wait for a lane's threads: in the order they came, or in a batcher's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Protocol

from easyremote.topics.claims import claimed_bytes

if TYPE_CHECKING:
    from easyremote.inference.batcher import Batcher
    from easyremote.inference.jobs import Job

__all__ = ["Fifo", "Ranked", "WaitingJobs"]


class WaitingJobs(Protocol):
    """What a lane takes its jobs from; used by several threads."""

    def put(self, job: Job) -> bool:
        """Add a job; say False if the queue is closed."""
        ...

    def take(self) -> list[Job] | None:
        """Wait for jobs and return those of the next batch; None when closed and empty."""
        ...

    def done(self, jobs: Sequence[Job]) -> None:
        """Hear that a batch which was taken is done, or never will be."""
        ...

    def expire(self) -> None:
        """Tell what is too late, though no thread may be free to take it."""
        ...

    def close(self) -> None:
        """Take no more in; what waits is still given out."""
        ...


class Fifo:
    """In the order they came; the cheapest there is.

    Parameters
    ----------
    max_batch : int
        Most jobs given out at once.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._closed = False
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def put(self, job: Job) -> bool:
        """Add a job."""
        if self._closed:
            return False
        self._jobs.put(job)
        return True

    def take(self) -> list[Job] | None:
        """Wait for a job; return it and what is behind it."""
        first = self._jobs.get()
        if first is None:
            self._jobs.put(None)  # for the lane's other threads
            return None
        batch = [first]
        while len(batch) < self._max_batch:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            batch.append(job)
        return batch

    def done(self, jobs: Sequence[Job]) -> None:
        """Count nothing: any number of batches may be out."""

    def expire(self) -> None:
        """Tell nothing: what waits here is taken at once, and told when it is looked at."""

    def close(self) -> None:
        """Take no more in."""
        self._closed = True
        self._jobs.put(None)


class Ranked:
    """By priority, deadline and key, as a batcher gives them out.

    Parameters
    ----------
    batcher : Batcher
        The order and the bounds.
    expired : callable
        Takes each job whose deadline passed while it waited.
    now_ms : callable
        The wall clock, ms.
    key : callable
        Of a job: jobs of one key may go together.
    at_once : int
        Most batches that are out at once: taken, and not done. What waits is shared out to those that may be taken.
    """

    def __init__(
        self,
        batcher: Batcher[Job],
        expired: Callable[[Job], None],
        now_ms: Callable[[], float],
        key: Callable[[Job], Hashable] = lambda _job: None,
        at_once: int = 1,
    ) -> None:
        self._batcher = batcher
        self._expired = expired
        self._now_ms = now_ms
        self._key = key
        self.at_once = at_once
        self._out = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, job: Job) -> bool:
        """Add a job."""
        call = job.call
        size = claimed_bytes(call) + sum(memoryview(one).nbytes for one in (*call.args, *call.kwargs.values()))
        key = job.call.id if job.alone else self._key(job)
        with self._changed:
            if self._closed:
                return False
            self._batcher.put(
                job, job.arrived_ms, priority=call.priority, deadline_ms=call.deadline_ms, size_bytes=size, key=key
            )
            self._changed.notify()
        return True

    def take(self) -> list[Job] | None:
        """Wait for jobs and return the batch that is first in rank; tell what is too late."""
        while True:
            with self._changed:
                self._changed.wait_for(self._may_take)
                if not len(self._batcher):
                    return None
                taken = self._batcher.take(self._now_ms(), shared_by=self.at_once - self._out)
                self._out += bool(taken.batch)
            for job in taken.expired:
                self._expired(job)
            if taken.batch:
                return taken.batch

    def done(self, jobs: Sequence[Job] = ()) -> None:  # how many there were is not counted
        """Hear that a batch which was taken is done, or never will be."""
        with self._changed:
            self._out -= 1
            self._changed.notify_all()

    def expire(self) -> None:
        """Tell what is too late, though no thread may be free to take it."""
        with self._changed:
            expired = self._batcher.expire(self._now_ms())
        for job in expired:
            self._expired(job)

    def bound(self, max_items: int, max_bytes: int) -> None:
        """Give out at most so many jobs, and bytes of arguments, at once from now on."""
        with self._changed:
            self._batcher.max_items, self._batcher.max_bytes = max_items, max_bytes

    def let_out(self, at_once: int, timeout_s: float = 0.0) -> bool:
        """Let so many batches be out from now on; say whether no more than that were before the time was up."""
        with self._changed:
            self.at_once = at_once
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._out <= at_once, timeout_s)

    def close(self) -> None:
        """Take no more in."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_take(self) -> bool:
        return self._out < self.at_once if len(self._batcher) else self._closed
