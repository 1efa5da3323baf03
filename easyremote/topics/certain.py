"""Sends records of which each must stand in its topic, and not twice.

A record that the broker has not acknowledged in time may stand there or not. It is looked for, and sent again only if
it is not there: so a broker that is away, or a process that was stopped with records in its hands, costs time alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError

from easyremote.clock import monotonic_s, wall_ms
from easyremote.errors import EasyRemoteError
from easyremote.threads import LongThread
from easyremote.topics.marks import mark_of
from easyremote.topics.producer import Delivered, is_refused

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.topics.producer import RecordProducer
    from easyremote.topics.records import RecordRef
    from easyremote.topics.tails import Tails

__all__ = ["CertainProducer"]

log = structlog.get_logger(__name__)

_LOOK_S = 0.1
_LONG_AGO_MS = 60_000.0
_QUIET_S = 1.0
"""Between two looks that must both find nothing before a record is sent again: a request that the client has given up
may still lie in the broker's socket."""
_AT_ONCE_S = 0.5
"""Longest time in which a broker answers that is not behind with what lies in its sockets."""


def _always() -> bool:
    return True


def _nothing() -> None:
    return None


class _Elsewhere:
    """Stands for the message of a record whose acknowledgement was not heard."""

    def __init__(self, topic: str, partition: int | None = None, offset: int | None = None) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int | None:
        return self._partition

    def offset(self) -> int | None:
        return self._offset


class _Sending:
    """A record on its way, and all that is needed to send it again."""

    __slots__ = (
        "_owner",
        "absent_since_s",
        "headers",
        "in_order",
        "is_absent",
        "key",
        "on_delivery",
        "partition",
        "since_ms",
        "topic",
        "value",
        "wanted",
    )

    def __init__(  # noqa: PLR0913, PLR0917  # a record has six parts
        self,
        owner: CertainProducer,
        topic: str,
        value: bytes | None,
        key: bytes | str | None,
        headers: list[tuple[str, bytes]],
        partition: int | None,
        on_delivery: Delivered,
        wanted: Callable[[], bool],
        in_order: bool,
    ) -> None:
        self._owner = owner
        self.topic = topic
        self.value = value
        self.key = key
        self.headers = headers
        self.partition = partition
        self.on_delivery = on_delivery
        self.wanted = wanted
        self.in_order = in_order
        self.since_ms: float | None = None
        self.absent_since_s: float | None = None
        """When it was first looked for in vain by a broker that answers at once."""
        self.is_absent = False
        """Whether it will not come; it is sent again if the group says once more that this process is a member."""

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None or is_refused(error) or error.fatal() or mark_of(self.key, self.headers) is None:
            self.on_delivery(error, message)
        else:
            self._owner.doubt(self, error, message)


class CertainProducer:
    """Sends by a producer that gives up soon, and looks for what that has given up.

    Parameters
    ----------
    producer : RecordProducer
        Sends; its time for a record is shorter than the group's session, so that nothing which a stopped process had
        in its hands is sent when it wakes, and another one has done it.
    tails : Tails
        Looks for what may have been sent.
    is_sure : callable
        `() -> bool`: whether this process may send; until then what is in doubt waits.
    ask_anew : callable
        Has it found out anew whether it may, and `is_sure` say no until then.
    quiet_s : float
        How long a record must be absent before it is sent again, s.
    """

    def __init__(
        self,
        producer: RecordProducer,
        tails: Tails,
        is_sure: Callable[[], bool] = _always,
        ask_anew: Callable[[], None] = _nothing,
        quiet_s: float = _QUIET_S,
    ) -> None:
        self._producer = producer
        self._tails = tails
        self._is_sure = is_sure
        self._ask_anew = ask_anew
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._doubted: list[tuple[_Sending, KafkaError]] = []
        self._came = threading.Event()
        self._closed = threading.Event()
        self._thread: LongThread | None = None

    def send(  # noqa: PLR0913  # a record has six parts
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: list[tuple[str, bytes]],
        partition: int | None = None,
        on_delivery: Delivered,
        wanted: Callable[[], bool] = _always,
        in_order: bool = False,
    ) -> None:
        """Send a record; its headers make it known again, see `marks`.

        `on_delivery` is told that it stands in its topic, or why it never can. While it is not known whether it stands
        there, `wanted` is asked: who has lost the partition that the record came from leaves it to the next owner, and
        `on_delivery` is told of the time-out.
        """
        one = _Sending(self, topic, value, key, headers, partition, on_delivery, wanted, in_order)
        self._send(one)

    def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged or in doubt; return how many records are neither."""
        return self._producer.flush(timeout_s)

    def close(self) -> None:
        """Look for nothing any more."""
        self._closed.set()
        self._came.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def doubt(self, one: _Sending, error: KafkaError, message: Message) -> None:
        """Keep a record that was not acknowledged, until it is known whether it stands in its topic."""
        if one.since_ms is None:
            handed_ms = message.timestamp()[1]  # to the client
            one.since_ms = float(handed_ms) if handed_ms > 0 else wall_ms() - _LONG_AGO_MS
        self._ask_anew()  # what kept the answer may have kept heartbeats too
        with self._lock:
            if not self._doubted:
                log.warning(
                    "it is not known whether a record was sent; looking for it", topic=one.topic, error=str(error)
                )
            self._doubted.append((one, error))
            if self._thread is None:
                self._thread = LongThread(self._run, "records in doubt", stopping=self._closed)
                self._thread.start()
        self._came.set()

    def _send(self, one: _Sending) -> None:
        self._producer.send(
            one.topic,
            one.value,
            key=one.key,
            headers=one.headers,
            partition=one.partition,
            on_delivery=one.delivered,
            in_order=one.in_order,
        )

    def _run(self) -> None:
        while not self._closed.is_set():
            self._came.wait()
            self._closed.wait(_LOOK_S)
            with self._lock:
                doubted, self._doubted = self._doubted, []
                self._came.clear()
            for one, error in doubted:
                try:
                    self._look_for(one, error)
                except Exception:  # the others must be looked for all the same
                    log.exception("a record in doubt could not be dealt with", topic=one.topic)

    def _look_for(self, one: _Sending, error: KafkaError) -> None:
        unheard = _Elsewhere(one.topic)
        if not one.wanted():
            one.on_delivery(error, unheard)  # type: ignore[arg-type]  # all that it has is its topic
            return
        mark, asked_s = mark_of(one.key, one.headers), monotonic_s()
        is_early = one.absent_since_s is not None and asked_s - one.absent_since_s < self._quiet_s
        if mark is None or one.since_ms is None or is_early or not self._is_sure():
            self._keep(one, error)
            return
        if one.is_absent:
            self._send_again(one)
            return

        def told(found: Mapping[bytes, Sequence[RecordRef]], missing: Collection[str]) -> None:
            if mark in found:
                there = _Elsewhere(one.topic, found[mark][0].partition, found[mark][0].offset)
                one.on_delivery(None, there)  # type: ignore[arg-type]  # all that it has is its place
            elif missing:
                gone = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"there is no topic {one.topic} that can be read")
                one.on_delivery(gone, unheard)  # type: ignore[arg-type]
            else:
                one.is_absent = self._is_absent(one, asked_s)
                if one.is_absent:
                    self._ask_anew()
                self._keep(one, error)

        self._tails.ask([(one.topic, one.partition)], one.since_ms, [mark], told)

    def _is_absent(self, one: _Sending, asked_s: float) -> bool:
        """Say whether a record that was not found is known never to come: not by one look at a busy broker."""
        if monotonic_s() - asked_s > _AT_ONCE_S:
            one.absent_since_s = None
            return False
        if one.absent_since_s is None:
            one.absent_since_s = asked_s
        return asked_s - one.absent_since_s >= self._quiet_s

    def _send_again(self, one: _Sending) -> None:
        one.absent_since_s, one.is_absent = None, False
        try:
            self._send(one)
        except EasyRemoteError as error:
            log.exception("a record cannot be sent again", topic=one.topic)
            refused = KafkaError(KafkaError.INVALID_RECORD, str(error))
            one.on_delivery(refused, _Elsewhere(one.topic))  # type: ignore[arg-type]

    def _keep(self, one: _Sending, error: KafkaError) -> None:
        with self._lock:
            self._doubted.append((one, error))
        self._came.set()
