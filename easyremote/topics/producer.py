"""The one producer of a process: idempotent, acknowledged by all replicas, its callbacks on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, EasyRemoteError, PayloadTooLarge, TopicError
from easyremote.tally import tally
from easyremote.threads import LongThread
from easyremote.topics.catalog import LARGEST_RECORD_BYTES
from easyremote.topics.connection import confluent_config
from easyremote.topics.known_brokers import KnownBrokers
from easyremote.topics.limits import shortened
from easyremote.topics.retry import passes

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.records import RecordRef

__all__ = ["Delivered", "Pace", "RecordProducer", "delivery_error", "is_refused"]

log = structlog.get_logger(__name__)

Delivered = Callable[[KafkaError | None, Message], None]

_POLL_S = 0.2
_REST_S = {"all": 0.003, "errors": 0.05}
"""Between two looks for what became of records: a thread that wakes at each one takes the core from whoever works on
the next record, and nobody waits for the reports so closely."""
_SLOT_S = 0.05
_BUSY = 75
"""Records in a slot of time from which on those of the next slot wait for each other: 1,500 a second."""
_LINGER_MS = 2
_DELIVERY_S = 30.0
_UNKNOWN_S = 5.0
"""How long a topic that the broker does not know may yet be on its way to it, since it was first named."""
_FORMER_S = 2 * _DELIVERY_S
_FULL_QUEUE_WAIT_S = 0.05
_FOR_EVER_MS = 0


class _Unsent:
    """Stands for the message of a record that the client itself has refused."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def topic(self) -> str:
        return self._topic


class Pace:
    """Says whether records come so fast that they should travel together, by how many came just before. Pure.

    Examples
    --------
    >>> pace = Pace()
    >>> any(pace.is_busy(0.0) for _ in range(100)), pace.is_busy(0.06), pace.is_busy(1.0)
    (False, True, False)
    """

    def __init__(self) -> None:
        self._slot_ends_s = 0.0
        self._came = 0
        self._busy = False

    def is_busy(self, now_s: float) -> bool:
        """Count a record that comes at `now_s`; say whether it should wait for others."""
        if now_s >= self._slot_ends_s:
            self._busy = self._came >= _BUSY and now_s < self._slot_ends_s + _SLOT_S
            self._came = 0
            self._slot_ends_s = now_s + _SLOT_S
        self._came += 1
        return self._busy


class _Line:
    """One client that sends, and the next one when it has forgotten every broker."""

    def __init__(self, config: dict[str, Any]) -> None:  # Any: librdkafka's settings
        self._config = config
        self._begin()
        self._former: list[tuple[Producer, float]] = []

    def poll(self, timeout_s: float) -> None:
        """Have the callbacks called, for some time."""
        self.client.poll(timeout_s)
        if self._brokers.are_forgotten:
            log.warning("this client has forgotten every broker; what it had is given back, another one sends on")
            former = self.client
            self._begin()
            former.purge()
            self._former.append((former, monotonic_s()))
        for former, since in self._former:
            former.poll(0)
            if len(former):
                former.purge()  # a thread had it in hand, and gave it a record yet
            elif monotonic_s() - since > _FORMER_S:
                self._former = [one for one in self._former if one[0] is not former]

    def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged or given back; return how many records are not."""
        deadline = monotonic_s() + timeout_s
        clients = [*(former for former, _ in self._former), self.client]
        return sum(client.flush(max(0.0, deadline - monotonic_s())) for client in clients)

    def close(self) -> None:
        """Let the clients go; their threads live on until they are collected else, which what refers back puts off."""
        for client in [*(former for former, _ in self._former), self.client]:
            client.close()

    def _begin(self) -> None:
        self._brokers = KnownBrokers()
        self.client = Producer(self._config | self._brokers.client)


class RecordProducer:
    """Sends records; every one is either acknowledged or its callback is told why not.

    While little is in flight nothing lingers; while much is, records wait a millisecond for others, and with one
    request in flight at a time what is produced meanwhile makes the next batch: a broker's work is by request and not
    by record (`docs/decisions/0003-one-request-in-flight.md`). When it changes over, records of one partition may
    overtake each other: calls and replies have no order; what has, says `in_order`.

    Parameters
    ----------
    settings : Settings
        Where the broker is, and the largest payload.
    tells : {"all", "errors"}
        What a record's `on_delivery` is told of. A report of each record costs about as much as sending it, so who
        learns of success by other ways, as a client does by its replies, asks for errors alone.
    patient : bool
        Whether records wait for a broker that is away as long as it takes, as a worker's do, instead of `delivery_s`:
        then nobody is told of an error that passes by itself.
    delivery_s : float
        How long a record may wait for its acknowledgement, s, also while this process is stopped.
    resends : bool
        Whether the client itself sends again what fails. Its numbers tell the broker what it has already, but begin
        anew after a record whose time was over: what was under way then may stand there twice. Who looks for what is
        not acknowledged, as `CertainProducer` does, wants each record sent once.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tells: Literal["all", "errors"] = "all",
        patient: bool = False,
        delivery_s: float = _DELIVERY_S,
        resends: bool = True,
    ) -> None:
        common = (
            confluent_config(settings)
            | {
                "acks": "all",
                "enable.idempotence": resends,
                "max.in.flight.requests.per.connection": 1,
                # Records without a key stay on one partition for a while, and so travel together.
                "sticky.partitioning.linger.ms": 20,
                "message.max.bytes": LARGEST_RECORD_BYTES,
                "queue.buffering.max.messages": 200_000,
                "delivery.timeout.ms": _FOR_EVER_MS if patient else int(delivery_s * 1000),
                "retry.backoff.ms": 20,
                "delivery.report.only.error": tells == "errors",
            }
            | ({} if resends else {"retries": 0})
        )
        self._prompt = _Line(common | {"linger.ms": 0})
        self._coalescing = _Line(common | {"linger.ms": _LINGER_MS})
        self._pace = Pace()
        self._rest_s = _REST_S[tells]
        self._closed = threading.Event()
        self._again: deque[Callable[[], None]] | None = deque() if patient else None
        self._pollers = [
            LongThread(partial(self._poll, line), f"producer {name}", stopping=self._closed)
            for name, line in (("prompt", self._prompt), ("coalescing", self._coalescing))
        ]
        for poller in self._pollers:
            poller.start()

    def send(  # noqa: PLR0913  # a record has six parts
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        on_delivery: Delivered | None = None,
        in_order: bool = False,
    ) -> None:
        """Queue a record; wait only while the queue is full.

        Parameters
        ----------
        topic, value, key, headers, partition
            The record; without a partition, the key chooses it.
        on_delivery : Delivered, optional
            Told whether the broker has the record.
        in_order : bool
            Keep the record behind those sent before it to the same partition with `in_order`.

        Raises
        ------
        PayloadTooLarge
            If the record is larger than a broker takes.
        TopicError
            If the record cannot be queued at all.
        """
        arguments = {} if partition is None else {"partition": partition}
        if self._again is not None:
            record = partial(self.send, topic, value, key=key, headers=headers, partition=partition, in_order=in_order)
            on_delivery = partial(self._reported, record, on_delivery)
        line = self._coalescing if in_order or self._pace.is_busy(monotonic_s()) else self._prompt
        while True:
            try:
                line.client.produce(
                    topic,
                    value,
                    key=key,
                    headers=headers,  # type: ignore[arg-type]  # the stub's list is invariant
                    on_delivery=on_delivery,
                    **arguments,  # type: ignore[arg-type]
                )
            except BufferError:
                self._make_room(line)
            except RuntimeError as error:
                raise TopicError(f"a record for {topic} cannot be sent: this client is closed") from error
            except (TypeError, ValueError, OverflowError) as error:  # a name or a number that no topic can have
                raise TopicError(f"a record for {shortened(repr(topic), 100)} cannot be sent: {error}") from error
            except KafkaException as error:
                if on_delivery is not None and error.args[0].code() in _NOWHERE:
                    # Told at once or by the report, as the client happens to know the topic: it comes to the same.
                    on_delivery(error.args[0], _Unsent(topic))  # type: ignore[arg-type]  # all that it has is its topic
                    return
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise PayloadTooLarge(
                        f"a record of {len(value or b'')} bytes for {topic} is above the limit of "
                        f"{LARGEST_RECORD_BYTES} bytes: send less"
                    ) from error
                raise TopicError(f"a record for {topic} cannot be sent: {error}") from error
            else:
                return

    async def deliver(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        in_order: bool = False,
    ) -> RecordRef:
        """Send a record and wait until the broker has it.

        Returns
        -------
        RecordRef
            Where it stands.
        """
        done = self._future(topic, value, key=key, headers=headers, partition=partition, in_order=in_order)
        return await asyncio.wrap_future(done)

    def deliver_blocking(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        in_order: bool = False,
    ) -> RecordRef:
        """Do as `deliver` does, from a thread that may wait."""
        return self._future(topic, value, key=key, headers=headers, partition=partition, in_order=in_order).result()

    def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged; return how many records are not after `timeout_s`."""
        deadline = monotonic_s() + timeout_s
        left = self._prompt.flush(timeout_s) + len(self._again or ())
        return left + self._coalescing.flush(max(0.0, deadline - monotonic_s()))

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush and stop; return how many records were not acknowledged in time."""
        left = self.flush(timeout_s)
        self._closed.set()
        for poller in self._pollers:
            poller.join(_POLL_S * 5)
        if not left and not any(poller.is_alive() for poller in self._pollers):
            self._prompt.close()
            self._coalescing.close()
        return left

    def _future(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None,
        headers: list[tuple[str, bytes]] | None,
        partition: int | None,
        in_order: bool,
    ) -> Future[RecordRef]:
        from easyremote.topics.records import RecordRef

        done: Future[RecordRef] = Future()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(RecordRef(topic, message.partition() or 0, message.offset() or 0))
            else:
                done.set_exception(delivery_error(topic, error))

        self.send(topic, value, key=key, headers=headers, partition=partition, on_delivery=delivered, in_order=in_order)
        return done

    def _make_room(self, line: _Line) -> None:
        if threading.current_thread() in self._pollers:
            line.client.poll(_FULL_QUEUE_WAIT_S)
        else:  # the poll thread drains the queue; this only yields to it
            self._closed.wait(_FULL_QUEUE_WAIT_S)

    def _reported(
        self, record: Callable[..., None], told: Delivered | None, error: KafkaError | None, message: Message
    ) -> None:
        # A client that is given up gives back what it had: it goes out by the next one.
        if error is not None and self._again is not None and passes(error) and not self._closed.is_set():
            self._again.append(partial(record, on_delivery=told))
        elif told is not None:
            told(error, message)

    def _send_again(self) -> None:
        # Not within a report: the queue may be full, and this thread is who empties it.
        while self._again and not self._closed.is_set():
            try:
                self._again.popleft()()
            except (EasyRemoteError, IndexError) as error:  # closed meanwhile, or the other poller had the last one
                log.warning("a record was not sent again", error=str(error))

    def _poll(self, line: _Line) -> None:
        while not self._closed.is_set():
            try:
                line.poll(_POLL_S)
            except Exception:  # of whoever was told of a record: the others must be told all the same
                count = tally.count("delivery reports")
                log.exception("who is told of a record's delivery has failed", count=count)
            if self._again:
                self._send_again()
            time.sleep(self._rest_s)  # an event's timed wait costs ten times as much, and this is all the time


_NOWHERE = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})  # noqa: SLF001  # librdkafka's own
_REFUSALS = _NOWHERE | frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        # By the settings of a topic that a caller has made:
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    }
)
_UNANSWERED = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    }
)


def is_refused(error: KafkaError) -> bool:
    """Say whether a record can never reach its topic, however often it is sent."""
    return error.code() in _REFUSALS


def delivery_error(topic: str, error: KafkaError) -> TopicError:
    """Return the exception that says why a record did not reach its topic."""
    if error.code() in _UNANSWERED:
        return BrokerUnavailable(f"a record for {topic} was not acknowledged in time ({error}): is Kafka running?")
    return TopicError(f"a record for {topic} was refused: {error}")
