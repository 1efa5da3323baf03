"""Threads on which calls run: one lane for each model, which takes all that waits at once, and one for functions."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

__all__ = ["Lane"]

log = structlog.get_logger(__name__)
J = TypeVar("J")


class Lane(Generic[J]):
    """A queue with threads behind it.

    A thread that is free takes everything that waits, up to `max_batch`; it never waits for more to come.

    Parameters
    ----------
    name : str
        Of the threads.
    run : callable
        Works a batch; must deal with its own errors, one that escapes is passed to `failed`.
    failed : callable
        Told of an error that escaped `run`.
    threads : int
        How many.
    max_batch : int
        Most jobs of a batch.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[J]], None],
        failed: Callable[[Exception], None],
        *,
        threads: int = 1,
        max_batch: int = 1,
    ) -> None:
        self._run = run
        self._failed = failed
        self._max_batch = max_batch
        self._jobs: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"lane {name} {number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, job: J) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued and end the threads; say whether they ended in time."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            batch = [job]
            ending = self._fill(batch)
            try:
                self._run(batch)
            except Exception as error:
                log.exception("a lane failed")
                self._failed(error)
            if ending:
                return

    def _fill(self, batch: list[J]) -> bool:
        while len(batch) < self._max_batch:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            batch.append(job)
        return False
