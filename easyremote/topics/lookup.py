"""Reads single records at known places: rare, a few milliseconds each, on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from easyremote.clock import monotonic_s
from easyremote.tally import tally
from easyremote.threads import LongThread
from easyremote.topics.connection import confluent_config
from easyremote.topics.known_brokers import KnownBrokers

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.records import RecordRef

__all__ = ["RecordReader"]

log = structlog.get_logger(__name__)

Told = Callable[[Message | None], None]

_PATIENCE_S = 3.0
"""For one partition; then those of others come first, and it is read by another client."""
_POLL_S = 0.2
_BEYOND = 1 << 63
_NOT_THERE = frozenset(
    {
        KafkaError._PARTITION_EOF,  # noqa: SLF001  # librdkafka's own codes begin so
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_NEAR = 2_000
"""Records that are read and dropped rather than asking the broker for another place."""


class RecordReader:
    """Reads records that are asked for by their places; the consumer is made when the first one is.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: Consumer | None = None
        self._brokers = KnownBrokers()
        self._asked: queue.SimpleQueue[tuple[RecordRef, Told] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = LongThread(self._run, "record reader", stopping=self._closed, at_end=self._end)
        self._thread.start()

    def ask(self, place: RecordRef, told: Told) -> None:
        """Let `told` have the record at a place, or None if it is not there any more, on the reader's thread."""
        self._asked.put((place, told))

    def close(self) -> None:
        """Stop; what is asked for and not read yet is not told."""
        self._closed.set()
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._asked.get()) is not None:
            asked = [first]
            while not self._asked.empty() and (one := self._asked.get()) is not None:
                asked.append(one)
            asked.sort(key=lambda one: (one[0].topic, one[0].partition, one[0].offset))
            for _, group in groupby(asked, key=lambda one: (one[0].topic, one[0].partition)):
                self._tell(list(group))
            if self._closed.is_set():
                break

    def _end(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _tell(self, asked: Sequence[tuple[RecordRef, Told]]) -> None:
        found: dict[int, Message] = {}
        try:
            read_to = self._read((place for place, _ in asked), found)
        except KafkaException as error:
            log.warning("records cannot be read", topic=asked[0][0].topic, error=str(error))
            read_to = -1
        for place, told in asked:
            if self._closed.is_set():
                return
            if place.offset < read_to:
                self._tell_one(place, told, found.get(place.offset))
            else:
                self._asked.put((place, told))  # the broker is away: that is no word on whether the record is there
        if read_to <= asked[-1][0].offset:
            log.warning("a record cannot be read; trying on", place=asked[-1][0])
            self._drop_client()
            self._closed.wait(_POLL_S)

    def _tell_one(self, place: RecordRef, told: Told, message: Message | None) -> None:
        try:
            told(message)
        except Exception:
            count = tally.count(f"records of {place.topic} that were looked up")
            log.exception("a record is passed over", place=place, count=count)
            if message is not None:
                self._tell_one(place, told, None)  # one that nobody can take is none

    def _read(self, places: Iterable[RecordRef], found: dict[int, Message]) -> int:
        """Gather the records of one partition, whose places rise; return up to where it is known what is there."""
        at: int | None = None
        is_ended = False
        deadline = monotonic_s() + _PATIENCE_S
        for place in places:
            if at is None or place.offset - at > _NEAR:
                self._assign(place)
                at = place.offset
            while at <= place.offset and not self._closed.is_set():
                message = self._poll()
                if message is not None and message.error() is None:
                    offset = message.offset() or 0
                    found[offset] = message
                    at, is_ended = offset + 1, False
                    deadline = monotonic_s() + _PATIENCE_S
                    continue
                # A leader that is new may end earlier for a moment.
                is_ended = is_ended or message is not None
                if monotonic_s() > deadline:
                    return _BEYOND if is_ended else at
        return _BEYOND if at is None else at

    def _assign(self, place: RecordRef) -> None:
        if self._consumer is not None and self._brokers.are_forgotten:
            log.warning("this client has forgotten every broker; another one reads on")
            self._drop_client()
        if self._consumer is None:
            self._consumer = Consumer(
                confluent_config(self._settings)
                | {
                    "group.id": f"{self._settings.node_id}-reader",  # asked for by the client, never joined
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "allow.auto.create.topics": False,
                    "auto.offset.reset": "earliest",
                    "fetch.queue.backoff.ms": 2,
                    "queued.min.messages": 100,
                }
                | self._brokers.client
            )
        self._consumer.assign([TopicPartition(place.topic, place.partition, place.offset)])

    def _drop_client(self) -> None:
        former, self._consumer = self._consumer, None
        if former is not None:
            former.close()
        self._brokers = KnownBrokers()

    def _poll(self) -> Message | None:
        """Return a record, or the word that there is none; None: no word yet."""
        assert self._consumer is not None
        try:
            message = self._consumer.poll(_POLL_S)
        except KafkaException as error:
            log.warning("the broker cannot be read just now; trying on", error=str(error))
            return None
        told = None if message is None else message.error()
        return message if told is None or told.code() in _NOT_THERE else None
