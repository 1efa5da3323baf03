"""Reads single records at known places: rare, a few milliseconds each, on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from easyremote.clock import monotonic_s
from easyremote.threads import PASSED_OVER, LongThread
from easyremote.topics.connection import confluent_config
from easyremote.topics.known_brokers import KnownBrokers

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.records import RecordRef

__all__ = ["RecordReader"]

log = structlog.get_logger(__name__)

Told = Callable[[Message | None], None]

_PATIENCE_S = 15.0
"""Longer than a broker takes to be back after it was killed."""
_POLL_S = 0.2
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
            found = self._read(place for place, _ in asked)
        except KafkaException as error:
            log.warning("records cannot be read", topic=asked[0][0].topic, error=str(error))
        for place, told in asked:
            if self._closed.is_set():
                return
            self._tell_one(place, told, found.get(place.offset))

    def _tell_one(self, place: RecordRef, told: Told, message: Message | None) -> None:
        try:
            told(message)
        except Exception:
            PASSED_OVER[place.topic] += 1
            log.exception("a record is passed over", place=place, count=PASSED_OVER[place.topic])
            if message is not None:
                self._tell_one(place, told, None)  # one that nobody can take is none

    def _read(self, places: Iterable[RecordRef]) -> dict[int, Message]:
        # All of one partition, in rising order.
        found: dict[int, Message] = {}
        at: int | None = None
        deadline = monotonic_s() + _PATIENCE_S
        for place in places:
            if at is None or place.offset - at > _NEAR:
                self._assign(place)
                at = place.offset
            while at <= place.offset and not self._closed.is_set():
                message = self._poll()
                if message is not None:
                    offset = message.offset() or 0
                    found[offset] = message
                    at = offset + 1
                elif monotonic_s() > deadline:
                    log.warning("a record cannot be read", topic=place.topic, partition=place.partition)
                    return found
        return found

    def _assign(self, place: RecordRef) -> None:
        if self._consumer is not None and self._brokers.are_forgotten:
            log.warning("this client has forgotten every broker; another one reads on")
            self._consumer.close()
            self._consumer, self._brokers = None, KnownBrokers()
        if self._consumer is None:
            self._consumer = Consumer(
                confluent_config(self._settings)
                | {
                    "group.id": f"{self._settings.node_id}-reader",  # asked for by the client, never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "fetch.queue.backoff.ms": 2,
                    "queued.min.messages": 100,
                }
                | self._brokers.client
            )
        self._consumer.assign([TopicPartition(place.topic, place.partition, place.offset)])

    def _poll(self) -> Message | None:
        assert self._consumer is not None
        try:
            message = self._consumer.poll(_POLL_S)
        except KafkaException as error:
            log.warning("the broker cannot be read just now; trying on", error=str(error))
            return None
        return message if message is not None and message.error() is None else None
