"""Threads on which calls run; one that does not come back is given up, and another takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from easyremote.clock import monotonic_s
from easyremote.threads import LongThread

if TYPE_CHECKING:
    from easyremote.inference.jobs import Job
    from easyremote.inference.queues import WaitingJobs

__all__ = ["Hand", "Lane"]

log = structlog.get_logger(__name__)


class Hand:
    """What one thread of a lane has in hand."""

    __slots__ = ("batch", "doing", "given_up", "held", "steps", "thread")

    def __init__(self) -> None:
        self.batch: Sequence[Job] = ()
        """What it took from the queue at once."""
        self.doing: Job | Sequence[Job] | None = None
        """What of it runs now: one job, or several together; None while it waits for others."""
        self.held: Sequence[Job] = ()
        """What it took and is not done yet, as the queue knows."""
        self.steps = 0
        """Counts the steps of what it does, so that slow progress is told from none."""
        self.given_up = False
        """Whether it hangs or takes too long for its lane: it must begin nothing any more."""
        self.thread: threading.Thread | None = None


class Lane:
    """A queue of jobs with threads behind it.

    A thread that is free takes what the queue gives it; it never waits for more to come.

    Parameters
    ----------
    name : str
        Of the threads.
    queue : WaitingJobs
        What waits.
    run : callable
        `(jobs, hand)`: works what was taken at once, and notes in the hand what it does; must deal with its own
        errors, one that escapes is passed to `failed`.
    failed : callable
        Told of an error that escaped `run`.
    threads : int
        How many.
    most : int, optional
        How many there may be: one more is started when the last that was free has something to do.
    """

    def __init__(
        self,
        name: str,
        queue: WaitingJobs,
        run: Callable[[Sequence[Job], Hand], None],
        failed: Callable[[Exception], None],
        *,
        threads: int = 1,
        most: int = 0,
    ) -> None:
        self.put = queue.put
        self.expire = queue.expire
        self._name = name
        self._queue = queue
        self._run = run
        self._failed = failed
        self._lock = threading.Lock()
        self._started = 0
        self._most = most
        self._free = 0
        self._hands: list[Hand] = []
        self._aside: list[Hand] = []
        self._hung: list[Hand] = []
        self.grow(threads)

    @property
    def hands(self) -> list[Hand]:
        """The hands of the threads that are not thought to hang, those set aside among them."""
        with self._lock:
            return [*self._hands, *self._aside]

    def is_aside(self, function: str) -> bool:
        """Say whether a thread that was set aside runs a function."""
        if not self._aside:
            return False  # nearly always, and without the lock
        with self._lock:
            return any(job.call.function == function for hand in self._aside for job in hand.batch)

    @property
    def hung(self) -> int:
        """How many threads were given up and have not come back."""
        with self._lock:
            self._hung = [one for one in self._hung if one.thread is not None and one.thread.is_alive()]
            return len(self._hung)

    def set_aside(self, hand: Hand) -> None:
        """Put another thread in the place of one that takes long; it ends after what it does."""
        with self._lock:
            self._hands.remove(hand)
            self._aside.append(hand)
        self._let_go(hand)
        self._start()

    def grow(self, threads: int) -> None:
        """Have so many threads at least."""
        for _ in range(threads - len(self.hands)):
            self._start()

    def replace(self, hand: Hand) -> None:
        """Put another thread in the place of one that was given up."""
        with self._lock:
            is_replaced = hand in self._aside
            (self._aside if is_replaced else self._hands).remove(hand)
            self._hung.append(hand)
        self._let_go(hand)
        if not is_replaced:
            self._start()

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued and end the threads; say whether they ended in time. Hung ones are not waited for."""
        deadline = monotonic_s() + timeout_s
        self._queue.close()
        threads = [one.thread for one in self.hands if one.thread is not None]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic_s()))
        return not any(thread.is_alive() for thread in threads)

    def _start(self) -> None:
        hand = Hand()
        with self._lock:
            name = f"lane {self._name} {self._started}"
            hand.thread = LongThread(partial(self._work, hand), name, gave_up=self._failed)
            self._started += 1
            self._hands.append(hand)
        hand.thread.start()

    def _work(self, hand: Hand) -> None:
        while not hand.given_up:
            with self._lock:
                self._free += 1
            batch = self._queue.take()
            with self._lock:
                self._free -= 1
                more = not self._free and len(self._hands) < self._most
            if batch is None:
                return
            if more:
                self._start()
            hand.batch = hand.held = batch
            try:
                self._run(batch, hand)
            except BaseException as error:
                log.exception("a lane failed")
                self._failed(error if isinstance(error, Exception) else RuntimeError(f"a lane failed: {error!r}"))
            hand.doing = None
            hand.batch = ()
            self._let_go(hand)
        with self._lock:
            if hand in self._aside:
                self._aside.remove(hand)

    def _let_go(self, hand: Hand) -> None:
        # Once: one that was given up may come back.
        with self._lock:
            held, hand.held = hand.held, ()
        if held:
            self._queue.done(held)
