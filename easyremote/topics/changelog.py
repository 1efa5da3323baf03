"""The state that a compacted topic holds: read when a partition is taken over, and kept up to date by who stands by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.threads import LongThread, Restarts
from easyremote.topics.connection import END_IS_TOLD_SOON, confluent_config
from easyremote.topics.known_brokers import KnownBrokers, hand_over
from easyremote.topics.retry import NO_LEADER, ask

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["Copy", "Standby", "catch_up", "read_latest"]

log = structlog.get_logger(__name__)

_GIVE_UP_S = 30.0
_TOLD_EACH_S = 2.0
_AT_ONCE = 5_000
_WAIT_S = 0.05
_YIELD_S = 0.001
_METADATA_S = 10.0
_MOST_FAILURES = 5
"""In a minute, of who stands by: less than of a thread that is needed."""


@dataclass
class Copy:
    """The last committed value of each key of one partition, as far as it has been read."""

    latest: MutableMapping[bytes, bytes] = field(default_factory=dict)
    next_offset: int = OFFSET_BEGINNING

    def is_at(self, end: int) -> bool:
        """Say whether nothing stands between this copy and an end of the partition."""
        return end in {0, self.next_offset} and self.next_offset <= end

    def take(self, message: Message) -> None:
        """Take a record in; one without a value forgets its key."""
        key, value = message.key(), message.value()
        self.next_offset = (message.offset() or 0) + 1
        if not isinstance(key, bytes):
            return
        if value is None:
            self.latest.pop(key, None)
        else:
            self.latest[key] = value


def read_latest(settings: Settings, topic: str, partitions: Sequence[int]) -> dict[int, MutableMapping[bytes, bytes]]:
    """Return the last committed value of each key of some partitions of a compacted topic.

    Raises
    ------
    BrokerUnavailable
        If no broker answers, or a transaction stays open, for 30 s.
    """
    copies = {number: Copy() for number in partitions}
    catch_up(settings, topic, copies)
    return {number: copy.latest for number, copy in copies.items()}


def catch_up(
    settings: Settings, topic: str, copies: Mapping[int, Copy], stopping: threading.Event | None = None
) -> int:
    """Read partitions on to where they end now, each from where its copy stands; say how far it is every 2 s.

    A transaction that is open there is waited for: that a group's offsets are decided does not say that the records of
    the same transaction are, for the broker decides each partition by itself.

    Returns
    -------
    int
        How many records had to be read.

    Raises
    ------
    BrokerUnavailable
        If no broker answers, or a transaction stays open, for 30 s, or `stopping` is set before that.
    TopicError
        If the topic cannot be read.
    """
    ends = _ends(settings, topic, tuple(copies), stopping)
    behind = {number: end for number, end in ends.items() if not copies[number].is_at(end)}
    if not behind:
        return 0
    consumer = _reader(settings, END_IS_TOLD_SOON)
    read, began = 0, monotonic_s()
    heard = told = began
    try:
        consumer.assign([TopicPartition(topic, number, copies[number].next_offset) for number in behind])
        while behind:
            messages = consumer.consume(_AT_ONCE, _WAIT_S)
            now = monotonic_s()
            heard = now if messages else heard
            _go_on(topic, now - heard, stopping)
            for message in messages:
                if message.error() is None:
                    copies[message.partition() or 0].take(message)
                    read += 1
                elif _is_end(consumer, message, copies):
                    number = message.partition() or 0
                    if (message.offset() or 0) >= behind.get(number, 0):
                        behind.pop(number, None)
            if behind and now - told > _TOLD_EACH_S:
                told = now
                left = sum(_left(consumer, topic, number, copies[number]) for number in behind)
                log.info("restoring state", topic=topic, records=read, left=left, seconds=round(now - began, 1))
        return read
    finally:
        consumer.close()


class Standby:
    """Keeps copies of the partitions of a changelog that this worker does not hold, so that it can take one over soon.

    Its thread reads all of them until `take` gives some away; `follow` begins anew with what this worker has handed
    over. If it cannot go on it has no copies, and what is taken over is read from the beginning.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    topic : str
        Full name of the changelog.
    make : callable, optional
        `(partition) -> Copy`: an empty one; unset: in memory.

    Raises
    ------
    BrokerUnavailable
        If no broker answers within 10 s.
    """

    def __init__(self, settings: Settings, topic: str, make: Callable[[int], Copy] = lambda _partition: Copy()) -> None:
        self._topic = topic
        self._make = make
        self._copies: dict[int, Copy] = {}
        self._lock = threading.Lock()
        self._works = True
        self._stopping = threading.Event()
        self._settings = settings
        self._brokers = KnownBrokers()
        self._consumer = _reader(settings, self._brokers.client)
        try:
            partitions = ask(
                f"to stand by for {topic}",
                lambda: self._consumer.list_topics(topic, timeout=_METADATA_S).topics[topic].partitions or {},
                where=settings.bootstrap_servers(),
                within_s=_METADATA_S,
            )
        except BaseException:
            self._consumer.close()
            raise
        self.follow(tuple(partitions))
        self._thread = LongThread(
            self._run,
            f"standby {topic}",
            stopping=self._stopping,
            at_end=self._end,
            gave_up=self._give_up,
            restarts=Restarts(most=_MOST_FAILURES),
        )
        self._thread.start()

    def take(self, partitions: Sequence[int]) -> dict[int, Copy]:
        """Give the copies of partitions away, as far as they are; they are followed no more."""
        with self._lock:
            known = [number for number in partitions if number in self._copies]
            if known:
                self._consumer.incremental_unassign([TopicPartition(self._topic, number) for number in known])
            return {
                number: self._copies.pop(number) if number in known else self._make(number) for number in partitions
            }

    def follow(self, partitions: Sequence[int]) -> None:
        """Keep copies of partitions from here on."""
        with self._lock:
            new = [number for number in partitions if self._works and number not in self._copies]
            self._copies |= {number: self._make(number) for number in new}
            if new:
                self._consumer.incremental_assign([TopicPartition(self._topic, one, OFFSET_BEGINNING) for one in new])

    def close(self) -> None:
        """Let everything go."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                read = self._read()
            except BaseException:
                self._read_all_again()
                raise
            # Nobody who waits for the lock gets it from a thread that takes it again at once.
            self._stopping.wait(_YIELD_S if read == _AT_ONCE else _WAIT_S)

    def _read(self) -> int:
        with self._lock:
            if self._brokers.are_forgotten:
                self._begin_anew()
            messages = self._consumer.consume(_AT_ONCE, _WAIT_S if self._copies else 0)
            for message in messages:
                copy = self._copies.get(message.partition() or 0)
                if message.error() is not None:
                    _is_end(self._consumer, message, self._copies)
                elif copy is not None:
                    copy.take(message)
        return len(messages)

    def _read_all_again(self) -> None:
        # A copy in which a record may be missing is none.
        with self._lock:
            followed, self._copies = list(self._copies), {}
            self._consumer.unassign()
        self.follow(followed)

    def _give_up(self, reason: Exception) -> None:
        # No harm to the worker: what is taken over is read from the topic.
        log.error("standing by has failed; state will be read when it is needed", topic=self._topic, error=str(reason))

    def _end(self) -> None:
        with self._lock:
            self._works = False
            self._copies.clear()
            self._consumer.close()

    def _begin_anew(self) -> None:
        log.warning("this client has forgotten every broker; another one stands by", topic=self._topic)
        former, self._brokers = self._consumer, KnownBrokers()
        self._consumer = _reader(self._settings, self._brokers.client)
        hand_over(former, self._consumer, [TopicPartition(self._topic, one, OFFSET_BEGINNING) for one in self._copies])


def _reader(settings: Settings, besides: dict[str, Any]) -> Consumer:  # Any: librdkafka's settings
    return Consumer(
        confluent_config(settings)
        | besides
        | {
            "group.id": f"{settings.node_id}-changelog",  # asked for by the client, never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # A changelog that was deleted and made anew is noticed, not taken for the old one's continuation.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 5,
        }
    )


def _ends(
    settings: Settings, topic: str, partitions: Sequence[int], stopping: threading.Event | None
) -> dict[int, int]:
    """Return where partitions end, records of open transactions included."""
    client = AdminClient(confluent_config(settings))
    newest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # Any: the package types it as it may be None

    def ends() -> dict[int, int]:
        told = client.list_offsets(
            {TopicPartition(topic, number): newest for number in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=_METADATA_S,
        )
        return {place.partition: future.result(_METADATA_S + 1).offset for place, future in told.items()}

    try:
        what, where = f"to restore {topic}", settings.bootstrap_servers()
        return ask(what, ends, where=where, within_s=_GIVE_UP_S, also=NO_LEADER, stopping=stopping)
    except KafkaException as error:
        raise TopicError(f"{topic} cannot be read: {error}") from error


def _go_on(topic: str, silent_s: float, stopping: threading.Event | None) -> None:
    """Say why a topic is read no further, if there is a reason."""
    if stopping is not None and stopping.is_set():
        raise BrokerUnavailable(f"{topic} is read no further: this worker ends")
    if silent_s > _GIVE_UP_S:
        raise BrokerUnavailable(
            f"{topic} cannot be read: for {_GIVE_UP_S:g} s no Kafka answers, or a transaction stays open"
        )


def _is_end(consumer: Consumer, message: Message, copies: Mapping[int, Copy]) -> bool:
    """Deal with what is no record; say whether it is the end of its partition."""
    error, topic, number = message.error(), message.topic() or "", message.partition() or 0
    assert error is not None
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes begin so
        return True
    if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        log.warning("the changelog is another one than before; reading all of it", topic=topic, partition=number)
        copy = copies.get(number)
        if copy is not None:
            copy.latest.clear()
            copy.next_offset = OFFSET_BEGINNING
            consumer.incremental_unassign([TopicPartition(topic, number)])
            consumer.incremental_assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
    elif error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise TopicError(f"{topic} cannot be read: {error}")
    return False


def _left(consumer: Consumer, topic: str, number: int, copy: Copy) -> int:
    marks = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_METADATA_S, cached=True)
    low, high = marks or (0, 0)
    return max(high - max(copy.next_offset, low), 0)
