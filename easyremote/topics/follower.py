"""Reads partitions without a group: a client's replies, the nodes' heartbeats, the alerts on somebody's screen."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from easyremote.clock import monotonic_s
from easyremote.errors import TopicError
from easyremote.tally import tally
from easyremote.threads import LongThread, take_each
from easyremote.topics.connection import confluent_config
from easyremote.topics.known_brokers import KnownBrokers, hand_over
from easyremote.topics.limits import Unreadable, attempt
from easyremote.topics.retry import AWAY, JUST_MADE, ask

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["GATHER_S", "Follower", "each_of", "follow_records"]

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
Record = TypeVar("Record")

GATHER_S = 0.1
_POLL_S = 0.2
_METADATA_S = 10.0
_RETRY_S = 0.05
_MADE_S = 2.0
"""For a topic that was just made: the broker that is asked may hear of it later than who made it."""


class Follower:
    """Hands every record of some partitions to a receiver, from a place on; it belongs to no group.

    It is positioned before the constructor returns, so nothing written after that is missed.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    topic : str
        Full name of the topic.
    receive : callable
        Takes the messages that came together; runs on the follower's thread.
    start : {"beginning", "end"}
        Where to start in each partition.
    back : int
        How many records before the end to start, with `start="end"`.
    gather : bool
        Let records come together, up to `GATHER_S` late, for who has no hurry: ten wake-ups a second at most, however
        often one comes.
    partitions : sequence of int, optional
        Which ones; all if unset.
    awaited : callable, optional
        `() -> bool`: whether anybody waits for records. With it a thread that waits may read itself, by `read_until`.

    Raises
    ------
    BrokerUnavailable
        If no broker answers within 10 s.
    TopicError
        If the topic does not exist.
    """

    def __init__(  # noqa: PLR0913  # what to read, from where, and how soon
        self,
        settings: Settings,
        topic: str,
        receive: Callable[[Sequence[Message]], None],
        *,
        start: Literal["beginning", "end"],
        partitions: Sequence[int] | None = None,
        back: int = 0,
        gather: bool = False,
        awaited: Callable[[], bool] = lambda: True,
    ) -> None:
        self.topic = topic
        self._awaited = awaited
        self._reading = threading.Lock()
        self._lent = False
        """Whether a thread that waits has read itself."""
        self._aside = False
        """Whether the follower's own thread stands aside, until it is woken."""
        self._woken = threading.Event()
        self._receive = receive
        self._stopping = threading.Event()
        self._caught_up = threading.Event()
        self._config = confluent_config(settings) | {
            "group.id": f"{settings.node_id}-follower",  # asked for by the client, never joined
            "enable.auto.commit": False,
            # Compaction and transactions leave holes, so the last record may not stand right before the end: the
            # end is told as an event too, though only where no more records come all the time.
            "enable.partition.eof": start == "beginning" or gather,
            "fetch.min.bytes": 1,
            # Who gathers asks now and then, and is answered at once.
            "fetch.wait.max.ms": 0 if gather else 500,
            "fetch.queue.backoff.ms": 2,
            "auto.offset.reset": "earliest",
        }
        self._where = settings.bootstrap_servers()
        self._brokers = KnownBrokers()
        self._consumer = Consumer(self._config | self._brokers.client)
        self._at_end: set[int] = set()
        self._behind: dict[int, int] = {}  # the partitions not read to where they ended at the start: their ends
        try:
            places = self._places(start, partitions, back)
        except KafkaException as error:
            self._consumer.close()
            raise TopicError(f"{topic} cannot be read: {error}") from error
        except BaseException:
            self._consumer.close()
            raise
        self.starts = places
        self._gather = gather
        if not self._behind:
            self._caught_up.set()
        self._consumer.assign([TopicPartition(topic, number, place) for number, place in places.items()])
        self._thread = LongThread(self._run, f"follower {topic}", stopping=self._stopping, at_end=self._end)
        self._thread.start()

    @property
    def caught_up(self) -> bool:
        """Whether all that stood in the partitions at the start has been received."""
        return self._caught_up.is_set()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until all that stood in the partitions at the start has been received; say whether it was."""
        return self._caught_up.wait(timeout_s)

    def read_until(self, done: Callable[[], bool], ends_s: float = math.inf) -> None:
        """Read on the caller's thread until it is done, which saves waking it; return at once if another one reads.

        It ends at `ends_s` by the monotonic clock at the latest.

        From then on the follower's own thread stands aside while nobody else waits.
        """
        self._lent = True
        if not self._reading.acquire(blocking=False):
            return
        try:
            while not done() and not self._stopping.is_set() and (left_s := ends_s - monotonic_s()) > 0:
                self._read(min(_POLL_S, left_s))
        except Exception:  # the follower's own thread reads on, and is the one that is given up in the end
            log.exception("a read failed", topic=self.topic)
        finally:
            self._reading.release()
            self.wake()

    def wake(self) -> None:
        """Have the follower's own thread read if it stands aside, and somebody waits while nobody reads."""
        if self._aside and self._awaited() and not self._reading.locked():
            self._woken.set()

    def close(self) -> None:
        """Stop reading; after this the receiver is not called any more."""
        self._stopping.set()
        self._woken.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _places(self, start: str, partitions: Sequence[int] | None, back: int) -> dict[int, int]:
        there = self._numbers()
        numbers = there if partitions is None else partitions
        marks = {number: self._watermarks(number) for number in numbers}
        if start == "end":
            return {number: max(low, high - back) for number, (low, high) in marks.items()}
        self._behind = {number: high for number, (low, high) in marks.items() if low < high}
        return dict.fromkeys(numbers, OFFSET_BEGINNING)

    def _numbers(self) -> list[int]:
        def known() -> list[int]:
            topic = self._consumer.list_topics(self.topic, timeout=_METADATA_S).topics[self.topic]
            if topic.error is not None:
                raise KafkaException(topic.error)
            return sorted(topic.partitions)

        made_by = monotonic_s() + _MADE_S
        while True:
            try:
                if numbers := self._ask("to know its partitions", known):
                    return numbers
            except KafkaException as error:
                if error.args[0].code() not in JUST_MADE:
                    raise
            if monotonic_s() > made_by:
                raise TopicError(
                    f"topic {self.topic} does not exist: start a worker, which creates the topics ('easyremote up')"
                )
            self._stopping.wait(_RETRY_S)

    def _watermarks(self, number: int) -> tuple[int, int]:
        def marks() -> tuple[int, int]:
            told = self._consumer.get_watermark_offsets(TopicPartition(self.topic, number), timeout=_METADATA_S)
            if told is None:
                raise TimeoutError(f"{self.topic}[{number}] did not answer within {_METADATA_S:g} s")
            return told

        # The leader of a topic that was just made is not known everywhere at once.
        return self._ask("to know where its partitions end", marks, JUST_MADE)

    def _ask(self, what: str, request: Callable[[], Answer], also: Container[int] = frozenset()) -> Answer:
        return ask(f"to read {self.topic}: {what}", request, where=self._where, within_s=_METADATA_S, also=also)

    def _run(self) -> None:
        while not self._stopping.is_set():
            patience_s = _POLL_S
            if self._lent and self._stands_aside():
                patience_s = 0.0  # what came for others is thrown away now and then, before it piles up
            if self._reading.acquire(blocking=False):
                try:
                    self._read(patience_s)
                finally:
                    self._reading.release()
            if self._gather and len(self._at_end) == len(self.starts):
                self._rest()

    def _end(self) -> None:
        self._stopping.set()  # given up, maybe: nobody reads any more
        with self._reading:
            self._consumer.close()

    def _stands_aside(self) -> bool:
        """Wait while nobody needs this thread to read, but not long; say whether nobody does even now."""
        self._woken.clear()
        self._aside = True
        # Said before it is asked, as `wake` asks after somebody waits: one of the two sees the other.
        if self._reading.locked() or not self._awaited():
            self._woken.wait(_POLL_S)
        self._aside = False
        return not self._awaited()

    def _read(self, patience_s: float) -> None:
        first = self._consumer.poll(patience_s)
        messages = [] if first is None else [first, *self._consumer.consume(1_000, 0)]
        good = [message for message in messages if self._is_record(message)]
        if good:
            take_each(self.topic, self._receive, good, _place)
            tally.read(self.topic, len(good))
        if not self._behind:
            self._caught_up.set()
        if self._brokers.are_forgotten:
            self._begin_anew()

    def _begin_anew(self) -> None:
        log.warning("this client has forgotten every broker; another one reads on", topic=self.topic)
        former, self._brokers = self._consumer, KnownBrokers()
        self._consumer = Consumer(self._config | self._brokers.client)
        hand_over(former, self._consumer, [TopicPartition(self.topic, *place) for place in self.starts.items()])

    def _rest(self) -> None:
        # A reader that waits at the broker is looked at with each record that is written, which costs each call there.
        everything = [TopicPartition(self.topic, number) for number in self.starts]
        self._consumer.pause(everything)
        self._stopping.wait(GATHER_S)
        self._at_end.clear()
        self._consumer.resume(everything)
        # Librdkafka looks once a second for what was resumed, unless something else is asked of that broker: this asks
        # each leader for its ends.
        with suppress(KafkaException):  # no broker just now: it is asked again after the next rest
            self._consumer.offsets_for_times(
                [TopicPartition(self.topic, number, OFFSET_END) for number in self.starts], timeout=_POLL_S
            )

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        number = message.partition() or 0
        if error is None:
            if self._behind and (message.offset() or 0) + 1 >= self._behind.get(number, 0):
                self._behind.pop(number, None)
            return True
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes begin so
            self._behind.pop(number, None)
            self._at_end.add(number)
            return False
        if error.code() in AWAY:
            return False  # told of once, by the client's own lines
        log.warning("the broker refused a read", topic=self.topic, error=str(error))
        return False


def _place(message: Message) -> str:
    return f"{message.topic()}[{message.partition()}]@{message.offset()}"


def follow_records(
    settings: Settings,
    topic: str,
    decode: Callable[[bytes], Record],
    take: Callable[[str, Record | None, int], None],
    changed: Callable[[], None] | None = None,
) -> Follower:
    """Follow a topic of records from its beginning; what cannot be read, or used, is counted and passed over.

    Parameters
    ----------
    settings : Settings
        Where the broker is, and the namespace.
    topic : str
        The topic's name without its namespace.
    decode : callable
        Makes a record of a value.
    take : callable
        `(key, record, at_ms)`: takes one, None for a record without a value; `at_ms` is its timestamp. Called on the
        follower's thread, maybe before this function returns. What it raises costs this one record.
    changed : callable, optional
        Called after those that came together.

    Raises
    ------
    BrokerUnavailable
        If no broker answers within 10 s.
    TopicError
        If the topic does not exist.
    """

    def one(message: Message) -> None:
        key, value = message.key(), message.value()
        name = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
        record = None if value is None else attempt(decode, value)
        if isinstance(record, Unreadable):
            raise record.error
        take(name, record, message.timestamp()[1])

    def receive(messages: Sequence[Message]) -> None:
        each_of(messages, one)
        if changed is not None:
            changed()

    return Follower(settings, settings.namespace + topic, receive, start="beginning")


def each_of(messages: Sequence[Message], take: Callable[[Message], None]) -> None:
    """Let each record be taken; one on which that raises is counted and passed over, and costs the others nothing."""
    for message in messages:
        try:
            take(message)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is about this record
            tally.pass_over(message.topic() or "", message.partition() or 0, message.offset() or 0, error)
