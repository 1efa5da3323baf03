"""A group's member as librdkafka has it, without a broker: logs that grow, partitions that come and go by chance.

What is modelled here was measured on librdkafka 2.16: a partition that is paused when it is given back is still paused
when it is given again; a pause right behind an assignment undoes it (its issue 5591); what a batch holds of a partition
that goes or comes meanwhile is purged; the end of a partition is told once when it is reached.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

MARKER_EACH = 7
"""Offsets that a transaction's marker takes: no record."""


class Message:
    """A record, or the end of a partition."""

    def __init__(self, topic: str, partition: int, offset: int, error: KafkaError | None = None) -> None:
        self._place, self._error = (topic, partition, offset), error

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._place[2]

    def error(self) -> KafkaError | None:
        return self._error


@dataclass
class Log:
    """A partition's log: when each offset was written, ms."""

    written_ms: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return len(self.written_ms)

    def end_at(self, at_ms: int) -> int:
        return sum(one <= at_ms for one in self.written_ms)


def is_record(offset: int) -> bool:
    return offset % MARKER_EACH != 0


@dataclass
class _Fetch:
    position: int
    is_fresh: bool = True
    """Nobody has polled since it was assigned."""
    is_undone: bool = False
    told_end: int = -1


class Cluster:
    """Clock, chance and logs of several topics."""

    def __init__(self, seed: int, topics: tuple[str, ...], partitions: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = 1_000_000
        self.logs = {(topic, number): Log() for topic in topics for number in range(partitions)}
        self.is_calm = False
        """Nothing happens any more."""

    def passes(self, ms: int) -> None:
        self.now_ms += ms
        if self.is_calm:
            return
        for log in self.logs.values():
            if self.chance.random() < 0.3:
                log.written_ms += [self.now_ms] * self.chance.randrange(1, 6)


class Client:
    """Stands for the consumer of a source or of its companion."""

    def __init__(self, cluster: Cluster, happen: Callable[[Client], None] = lambda _client: None) -> None:
        self._cluster = cluster
        self._happen = happen
        self._fetches: dict[tuple[str, int], _Fetch] = {}
        self._paused: set[tuple[str, int]] = set()
        self._changed: set[tuple[str, int]] = set()
        self.on: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self.is_member = True
        self.closed = False

    def subscribe(self, _topics: list[str], **on: Callable[[Any, list[TopicPartition]], None]) -> None:
        self.on = on

    def poll(self, _timeout_s: float) -> Message | None:
        for fetch in self._fetches.values():
            fetch.is_fresh = False
        self._cluster.passes(10)
        self._happen(self)
        return self._next()

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        found: list[Message] = []
        self._changed.clear()
        for _ in range(min(count, self._cluster.chance.randrange(1, 12))):
            message = self.poll(timeout_s) if timeout_s else self._next()
            if message is not None:
                found.append(message)
            if self._changed:
                # What came of those that changed before the change.
                found = [one for one in found[:-1] if (one.topic(), one.partition()) not in self._changed] + found[-1:]
                self._changed.clear()
        return found

    def _next(self) -> Message | None:
        places = [place for place, fetch in self._fetches.items() if place not in self._paused and not fetch.is_undone]
        self._cluster.chance.shuffle(places)
        for place in places:
            fetch, end = self._fetches[place], self._cluster.logs[place].end
            while fetch.position < end:
                fetch.position += 1
                if is_record(fetch.position - 1):
                    fetch.is_fresh = False
                    return Message(*place, fetch.position - 1)
            if fetch.told_end != end:
                fetch.told_end = end
                return Message(*place, end, KafkaError(KafkaError._PARTITION_EOF))
        return None

    def stall(self, topic: str, partition: int) -> None:
        """Read a partition no more, without a word, until it is assigned anew."""
        self._fetches[topic, partition].is_undone = True

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(*place) for place in self._fetches]

    def assign(self, given: list[TopicPartition]) -> None:
        self._fetches.clear()
        self.incremental_assign(given)

    def incremental_assign(self, given: list[TopicPartition]) -> None:
        for one in given:
            assert (one.topic, one.partition) not in self._fetches
            self._fetches[one.topic, one.partition] = _Fetch(max(one.offset, 0))
            self._changed.add((one.topic, one.partition))

    def incremental_unassign(self, taken: list[TopicPartition]) -> None:
        for one in taken:
            del self._fetches[one.topic, one.partition]
            self._changed.add((one.topic, one.partition))

    def pause(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            place = one.topic, one.partition
            self._paused.add(place)
            fetch = self._fetches[place]
            fetch.is_undone |= fetch.is_fresh

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {(one.topic, one.partition) for one in partitions}

    def seek(self, place: TopicPartition) -> None:
        self._fetches[place.topic, place.partition].position = place.offset

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(one.topic, one.partition, self._at(one)) for one in partitions]

    def _at(self, one: TopicPartition) -> int:
        fetch = self._fetches.get((one.topic, one.partition))
        return -1001 if fetch is None else fetch.position

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        if not asynchronous and not self.is_member:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
        if not asynchronous and not self._cluster.is_calm and self._cluster.chance.random() < 0.5:
            raise KafkaException(KafkaError(KafkaError.REQUEST_TIMED_OUT))
        return offsets

    def consumer_group_metadata(self) -> object:
        return object()

    def close(self) -> None:
        self.closed = True


class TrueEnds:
    """Answers at the next look where partitions ended when that was asked."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: tuple[int, dict[tuple[str, int], int]] | None = None
        self.answers = True

    def ask(self, places: list[tuple[str, int]]) -> None:
        self._told = self._cluster.now_ms, {place: self._cluster.logs[place].end for place in places}

    def answer(self) -> tuple[int, dict[tuple[str, int], int]] | None:
        told, self._told = self._told, None
        return told if self.answers else None
