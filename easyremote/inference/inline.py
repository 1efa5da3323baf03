"""Runs a quick call on the thread that read it, which need not wake another; if that takes long, another reads on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from easyremote.inference.lanes import Hand

if TYPE_CHECKING:
    from easyremote.inference.jobs import Job
    from easyremote.inference.lanes import Lane

__all__ = ["Inline"]


class Inline:
    """What the thread that reads has in hand itself.

    Parameters
    ----------
    lane : Lane
        Where such calls run otherwise. A call that takes long is counted there, and its limit is watched there.
    run : callable
        `(jobs, hand)`: as the lane's.
    relieve : callable
        Has another thread read; the one that read before must read no more when it comes back.
    """

    def __init__(self, lane: Lane, run: Callable[[Sequence[Job], Hand], None], relieve: Callable[[], None]) -> None:
        self._lane = lane
        self._run = run
        self._relieve = relieve
        self._lock = threading.Lock()
        self._hand = Hand()
        self._seen: object = None

    def run(self, job: Job) -> None:
        """Run a job on this thread."""
        hand = self._hand
        hand.thread = threading.current_thread()
        hand.batch = (job,)
        try:
            self._run(hand.batch, hand)
        finally:
            with self._lock:
                hand.doing = None
                hand.batch = ()
                is_relieved = hand is not self._hand
            if is_relieved:
                self._lane.dismiss(hand)

    def look(self) -> None:
        """Have another thread read if what runs is what ran at the last look."""
        with self._lock:
            doing = self._hand.doing
            if doing is None or doing is not self._seen:
                self._seen = doing
                return
            hand, self._hand, self._seen = self._hand, Hand(), None
            self._lane.adopt(hand)
            self._relieve()
