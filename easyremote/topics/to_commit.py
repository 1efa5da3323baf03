"""Where a group is to stand in the partitions of a topic: noted by any thread, asked for again where that failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING

from easyremote.clock import monotonic_s

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, TopicPartition

    from easyremote.topics.doneset import Place

__all__ = ["ToCommit"]

_AGAIN_S = 0.5


class ToCommit:
    """The places that a consumer is yet to commit.

    A commit that the broker has not taken, as while it is away, is made again with the newest place that was asked for:
    of a partition in which nothing more comes nobody else would do so, and its group would seem to be behind for ever.

    Parameters
    ----------
    clock : callable
        Monotonic, s.
    """

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: dict[int, Place] = {}
        self._asked: dict[int, Place] = {}
        self._failed: set[int] = set()
        self._again_s = 0.0

    def note(self, places: dict[int, Place]) -> None:
        """Note where the group stands, by partition; callable from any thread."""
        with self._lock:
            self._noted |= places

    def take(self, held: Container[int], *, at_last: bool = False) -> dict[int, Place]:
        """Return what is to be asked for now, of the partitions that are held; `at_last`: also what has just failed."""
        with self._lock:
            if self._failed and (at_last or self._clock() >= self._again_s):
                self._noted = {one: self._asked[one] for one in self._failed} | self._noted
                self._failed.clear()
            taken = {number: place for number, place in self._noted.items() if number in held}
            self._noted.clear()
            self._asked |= taken
            return taken

    def told(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        """Hear what became of an asynchronous commit, as librdkafka's `on_commit` says it."""
        with self._lock:
            self._failed |= {
                one.partition for one in places if (one.error or error) is not None and one.partition in self._asked
            }
            self._again_s = self._clock() + _AGAIN_S

    def forget(self, partitions: Iterable[int]) -> None:
        """Note that partitions are another member's now, or this one's anew: nothing of before may be committed."""
        with self._lock:
            for number in partitions:
                self._noted.pop(number, None)
                self._asked.pop(number, None)
                self._failed.discard(number)
