"""Looks whether something was sent already: reads the ends of topics, from a time on, and keeps by what each is known.

For the rare moments in which somebody cannot know it otherwise: a partition was taken over, a record was sent and not
acknowledged, an id came a second time. What was read once is not read again for the next question.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable
from easyremote.threads import LongThread
from easyremote.topics.connection import confluent_config
from easyremote.topics.known_brokers import KnownBrokers
from easyremote.topics.marks import mark_of
from easyremote.topics.records import RecordRef
from easyremote.topics.retry import JUST_MADE, ask
from easyremote.topics.wire import Headers, headers_of

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["EVERY", "Tails", "Told"]

log = structlog.get_logger(__name__)

Told = Callable[[Mapping[bytes, Sequence[RecordRef]], Collection[str]], None]
"""Takes where records stand that have one of the marks, by the mark, and which topics could not be looked at."""

EVERY = "*"
"""At the end of a topic's name: all that begin so."""

_SLACK_MS = 5_000
"""How far the clocks of machines may be apart."""
_REQUEST_S = 5.0
_TOGETHER_S = 5.0
_POLL_S = 0.1
_PATIENCE_S = 5.0
"""From the last record on; then other questions come first."""
_MADE_S = 2.0
"""For a topic that was just made: not every broker has heard of it."""
_REST_S = 0.2
_AGAIN_S = 1.0
_KEPT_S = 60.0
_COUNTED_S = 5.0
_MOST_TOPICS = 1_000
_MOST_MARKS = 200_000
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._INVALID_ARG,  # noqa: SLF001  # librdkafka's own codes begin so
    }
)

Place = tuple[str, int]
Answer = TypeVar("Answer")


class Question(NamedTuple):
    """What is looked for, and where: partitions of topics, None for all, from a time on, ms since the epoch."""

    places: tuple[tuple[str, int | None], ...]
    since_ms: float
    marks: tuple[bytes, ...]
    told: Told
    asked_s: float


@dataclass
class _Tail:
    """What is known of one partition from a time on."""

    since_ms: int
    start: int
    end: int
    used_s: float
    marks: dict[bytes, int] = field(default_factory=dict)


class Tails:
    """Reads the ends of topics on a thread of its own, whose client is made when it is first asked.

    A broker that is away is waited for; one topic that cannot be read keeps no question about others waiting.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    seen : callable, optional
        `(topic, partition, headers)`: told of every record that is read, on that thread.
    """

    def __init__(self, settings: Settings, seen: Callable[[str, int, Headers], None] | None = None) -> None:
        self._settings = settings
        self.seen = seen
        self._consumer: Consumer | None = None
        self._brokers = KnownBrokers()
        self._tails: dict[Place, _Tail] = {}
        self._counts: dict[str, tuple[dict[str, int | None], float]] = {}
        """Of topics, the partitions, and when they were counted; by the empty name of all."""
        self._asked: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._waiting: list[Question] = []
        self._thread = LongThread(self._run, "tails", stopping=self._closed, at_end=self._drop_client)
        self._thread.start()

    def ask(
        self,
        places: Iterable[tuple[str, int | None]],
        since_ms: float,
        marks: Iterable[bytes],
        told: Told,
    ) -> None:
        """Let `told` know, on the reader's thread, which records of these places have one of the marks.

        What was written before this is asked is looked at, back to `since_ms` by the records' own time, and somewhat
        further: clocks differ.
        """
        self._asked.put(Question(tuple(places), since_ms, tuple(marks), told, monotonic_s()))

    def close(self) -> None:
        """Stop; what was asked and is not known yet is not told."""
        self._closed.set()
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._waiting += self._take(wait=not self._waiting)
            if self._closed.is_set():
                break
            try:
                self._waiting = self._answer(self._waiting)
            except Exception:  # whatever it was, those who ask wait for ever if this thread ends
                if not self._closed.is_set():
                    log.exception("what was sent before could not be looked for; trying again")
                self._drop_client()
                self._closed.wait(_AGAIN_S)
            if self._waiting:
                self._closed.wait(_REST_S)

    def _take(self, *, wait: bool) -> list[Question]:
        taken = []
        while wait or not self._asked.empty():
            one = self._asked.get()
            if one is None:
                break
            taken.append(one)
            wait = False
        return taken

    def _answer(self, questions: list[Question]) -> list[Question]:
        """Answer the questions that can be answered; return the others."""
        partitions = self._partitions({topic for one in questions for topic, _ in one.places})
        wanted: dict[Place, float] = {}
        for one in questions:
            for place in _expanded(one, partitions):
                wanted[place] = min(one.since_ms, wanted.get(place, one.since_ms))
        known = self._read_up(wanted)
        left = []
        for one in questions:
            places = _expanded(one, partitions)
            is_new = monotonic_s() - one.asked_s < _MADE_S
            missing = {
                topic for topic, _ in one.places if not topic.endswith(EVERY) and partitions.get(topic) is None
            } | {topic for topic, number in places if known.get((topic, number)) == "refused"}
            if (missing and is_new) or any(known.get(place) == "late" for place in places):
                left.append(one)
                continue
            if missing:
                log.warning("what was sent there cannot be known: the topic cannot be read", topics=sorted(missing))
            try:
                one.told(self._found(one, places), missing)
            except Exception:  # the others must be told all the same
                log.exception("what is known of a record cannot be used")
        self._forget()
        return left

    def _found(self, one: Question, places: Sequence[Place]) -> dict[bytes, list[RecordRef]]:
        found: dict[bytes, list[RecordRef]] = {}
        for place in places:
            tail = self._tails.get(place)
            if tail is None or not tail.marks:
                continue
            for mark in one.marks:
                offset = tail.marks.get(mark)
                if offset is not None:
                    found.setdefault(mark, []).append(RecordRef(*place, offset))
        return found

    def _partitions(self, names: set[str]) -> dict[str, int | None]:
        """Return how many partitions each topic has, None for one that is not there; patterns are resolved."""
        told: dict[str, int | None] = {}
        for name in {"" if name.endswith(EVERY) else name for name in names}:
            counts, at_s = self._counts.get(name, ({}, -_COUNTED_S))
            if monotonic_s() - at_s > _COUNTED_S or None in counts.values():
                counts = self._request("to see which topics there are", partial(_partition_counts, name))
                self._counts[name] = counts, monotonic_s()
            told |= counts
        if len(self._counts) > _MOST_TOPICS:
            self._counts.clear()
        return told

    def _read_up(self, wanted: dict[Place, float]) -> dict[Place, str]:
        """Read all of these places to their present ends; say of which that was not possible."""
        unknown: dict[Place, str] = {}
        ends = self._offsets(dict.fromkeys(wanted, OFFSET_END), unknown)
        older = {
            place: max(0, int(since_ms) - _SLACK_MS)
            for place, since_ms in wanted.items()
            if place in ends and ((tail := self._tails.get(place)) is None or since_ms - _SLACK_MS < tail.since_ms)
        }
        starts = self._offsets(older, unknown)
        ranges: dict[Place, int] = {}
        for place, end in ends.items():
            if place in unknown:
                continue
            if place in older:
                start = starts[place] if starts[place] >= 0 else end
                self._tails[place] = _Tail(older[place], start, start, monotonic_s())
            tail = self._tails[place]
            tail.used_s = monotonic_s()
            if tail.end < end:
                ranges[place] = end
        unknown |= dict.fromkeys(self._read(ranges), "late")
        return unknown

    def _offsets(self, asked: dict[Place, int], unknown: dict[Place, str]) -> dict[Place, int]:
        # `OFFSET_END` asks for the end, a time for the first record that is not older.
        if not asked:
            return {}
        try:
            told = self._request("to see where topics end", partial(_offsets_for_times, asked), _TOGETHER_S)
        except BrokerUnavailable:
            told = self._each_offsets(asked, unknown)
        known = {}
        if any(one.error is not None for one in told):
            self._drop_client()  # as after an exception
        for one in told:
            if one.error is None:
                known[one.topic, one.partition] = one.offset
            else:
                unknown[one.topic, one.partition] = "refused" if one.error.code() in _REFUSED else "late"
        return known

    def _each_offsets(self, asked: dict[Place, int], unknown: dict[Place, str]) -> list[TopicPartition]:
        # One partition without a leader fails the request for all: then each topic is asked about by itself.
        told: list[TopicPartition] = []
        for topic in {topic for topic, _ in asked}:
            of_topic = {place: at for place, at in asked.items() if place[0] == topic}
            try:
                told += self._request("to see where a topic ends", partial(_offsets_for_times, of_topic), 0.0)
            except BrokerUnavailable:
                unknown |= dict.fromkeys(of_topic, "late")
        return told

    def _read(self, ends: dict[Place, int]) -> set[Place]:
        """Read partitions on to their ends; return those that did not come to it."""
        behind = dict(ends)
        if not behind:
            return set()
        client = self._client()
        client.assign([TopicPartition(*place, self._tails[place].end) for place in behind])
        heard_s = monotonic_s()
        while behind and not self._closed.is_set() and monotonic_s() - heard_s < _PATIENCE_S:
            for message in client.consume(1_000, _POLL_S):
                place = (message.topic() or "", message.partition() or 0)
                heard_s = self._note(place, message, behind, heard_s)
        client.unassign()
        if behind and not self._closed.is_set():
            log.warning("what was sent before is not known yet; looking on", partitions=sorted(behind))
            if self._brokers.are_forgotten:
                self._drop_client()
        return set(behind)

    def _note(self, place: Place, message: Message, behind: dict[Place, int], heard_s: float) -> float:
        error, tail = message.error(), self._tails.get(place)
        if tail is None:
            return heard_s
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                tail.end = max(tail.end, behind.pop(place, tail.end))
            return heard_s
        headers, offset = headers_of(message), message.offset() or 0
        mark = mark_of(message.key(), headers)
        if mark is not None:
            tail.marks[mark] = offset
        if self.seen is not None:
            self.seen(*place, headers)
        tail.end = offset + 1
        if tail.end >= behind.get(place, 0):
            behind.pop(place, None)
        return monotonic_s()

    def _forget(self) -> None:
        now_s = monotonic_s()
        for place, tail in list(self._tails.items()):
            if now_s - tail.used_s > _KEPT_S or len(tail.marks) > _MOST_MARKS:
                del self._tails[place]

    def _request(self, what: str, request: Callable[[Consumer], Answer], within_s: float | None = None) -> Answer:
        def once() -> Answer:
            if self._brokers.are_forgotten:
                self._drop_client()
            try:
                return request(self._client())
            except KafkaException:
                # After a restart of its broker a client may ask by the epoch that it knew, and never learn another one.
                self._drop_client()
                raise

        where = self._settings.bootstrap_servers()
        return ask(what, once, where=where, within_s=within_s, also=JUST_MADE, stopping=self._closed)

    def _client(self) -> Consumer:
        if self._consumer is None:
            self._brokers = KnownBrokers()
            self._consumer = Consumer(
                confluent_config(self._settings)
                | {
                    "group.id": f"{self._settings.node_id}-tails",  # asked for by the client, never joined
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "allow.auto.create.topics": False,
                    # What nobody has decided on yet may have been sent by who was killed.
                    "isolation.level": "read_uncommitted",
                    "fetch.queue.backoff.ms": 2,
                }
                | self._brokers.client
            )
        return self._consumer

    def _drop_client(self) -> None:
        former, self._consumer = self._consumer, None
        if former is not None:
            former.close()
        self._brokers = KnownBrokers()


def _offsets_for_times(asked: Mapping[Place, int], client: Consumer) -> list[TopicPartition]:
    places = [TopicPartition(*place, at) for place, at in asked.items()]
    return client.offsets_for_times(places, timeout=_REQUEST_S)


def _partition_counts(name: str, client: Consumer) -> dict[str, int | None]:
    known = client.list_topics(name, timeout=_REQUEST_S) if name else client.list_topics(timeout=_REQUEST_S)
    return {
        topic: len(its.partitions) if its.error is None and its.partitions else None
        for topic, its in known.topics.items()
    }


def _expanded(one: Question, partitions: dict[str, int | None]) -> list[Place]:
    places: list[Place] = []
    for topic, number in one.places:
        if topic.endswith(EVERY):
            names = [name for name in partitions if name.startswith(topic[: -len(EVERY)])]
        else:
            names = [topic]
        for name in names:
            count = partitions.get(name) or 0
            if number is None:
                places += [(name, part) for part in range(count)]
            elif 0 <= number < count:
                places.append((name, number))
    return places
