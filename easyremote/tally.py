"""How many records this process has followed and could not use: counted, told when it matters, not a line for each."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

import structlog

from easyremote.clock import monotonic_s

__all__ = ["Tally", "tally"]

log = structlog.get_logger(__name__)

_TOLD_EACH_S = 10.0
_NOTHING_ELSE = 100
"""Dead letters of one topic in a row from which on that is worth a line of its own."""
_MOST_TOPICS = 10_000
_REASON = 500
_OTHERS = "others"


@dataclass
class _Passed:
    count: int = 0
    told: int = 0
    told_s: float = float("-inf")
    partitions: set[int] = field(default_factory=set)


class Tally:
    """Counts records that are passed over and those that become dead letters; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed: dict[str, _Passed] = {}
        self.dead_letters = 0
        """Records that became dead letters here."""
        self.passed_over = 0
        """Records of topics for the system's own use, orders and reports that were left out."""
        self._read: Counter[str] = Counter()
        self.streaks: dict[str, int] = {}
        """Dead letters in a row, of topics of which nothing else came since."""

    def read(self, topic: str, records: int) -> None:
        """Count records of a topic for the system's own use that this process has read, whatever it made of them."""
        with self._lock:
            self._read[topic] += records

    def followed(self) -> dict[str, tuple[int, int]]:
        """Return of each topic that was read how many of its records were, and how many of these were passed over."""
        with self._lock:
            return {topic: (count, self._of(topic).count) for topic, count in self._read.items()}

    def count(self, kind: str) -> int:
        """Count an item that is passed over, which its reader tells of; return how many of its kind were."""
        with self._lock:
            return self._count(kind).count

    def pass_over(self, topic: str, partition: int, offset: int | None, reason: object) -> None:
        """Count a record that nobody can use; say so of the first of a partition, and then now and then."""
        with self._lock:
            one = self._count(topic)
            now_s = monotonic_s()
            if partition in one.partitions and now_s - one.told_s < _TOLD_EACH_S:
                return
            one.partitions.add(partition)
            one.told_s = now_s
            since, one.told = one.count - one.told, one.count
        said = repr(reason) if isinstance(reason, Exception) and not str(reason) else str(reason)
        log.warning(
            "records that are none of ours are passed over",
            topic=topic,
            partition=partition,
            offset=offset,
            records=since,
            reason=said if len(said) <= _REASON else said[:_REASON] + "...",
        )

    def _of(self, topic: str) -> _Passed:
        return self._passed.get(topic) or _Passed()

    def _count(self, topic: str) -> _Passed:
        self.passed_over += 1
        # Whatever comes beyond is counted together: names may be anybody's.
        name = topic if topic in self._passed or len(self._passed) < _MOST_TOPICS else _OTHERS
        one = self._passed.setdefault(name, _Passed())
        one.count += 1
        return one

    def bury(self, topic: str, read: int, dead: int) -> None:
        """Count dead letters among the records that were read together; say so when nothing else comes."""
        with self._lock:
            self.dead_letters += dead
            if dead < read:
                self.streaks.pop(topic, None)
                return
            before = self.streaks.get(topic, 0)
            self.streaks[topic] = before + dead
        if before < _NOTHING_ELSE <= before + dead:
            log.error(
                "nothing but dead letters: no record that was read of this topic can be used",
                topic=topic,
                dead_letters=before + dead,
                remedy="easyremote dlq list shows them with their reasons",
            )

    def well(self, topic: str) -> None:
        """Hear that good records came; to be asked for only where there are `streaks`."""
        with self._lock:
            self.streaks.pop(topic, None)


tally = Tally()
"""Of this process."""
