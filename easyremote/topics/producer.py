"""The one producer of a process: idempotent, acknowledged by all replicas, its callbacks on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from easyremote.errors import BrokerUnavailable, PayloadTooLarge, TopicError
from easyremote.topics.catalog import LARGEST_RECORD_BYTES
from easyremote.topics.connection import confluent_config

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.records import RecordRef

__all__ = ["Delivered", "RecordProducer", "delivery_error", "is_refused"]

Delivered = Callable[[KafkaError | None, Message], None]

_POLL_S = 0.2
_FULL_QUEUE_WAIT_S = 0.05


class RecordProducer:
    """Sends records; every one is either acknowledged or its callback is told why not.

    Nothing lingers, and yet much travels together: with one request in flight to the broker at a time, whatever is
    produced meanwhile makes the next batch (`docs/decisions/0003-one-request-in-flight.md`).

    Parameters
    ----------
    settings : Settings
        Where the broker is, and the largest payload.
    """

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(
            confluent_config(settings)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "max.in.flight.requests.per.connection": 1,
                # Records without a key stay on one partition for a while, and so travel together.
                "sticky.partitioning.linger.ms": 20,
                "message.max.bytes": LARGEST_RECORD_BYTES,
                "queue.buffering.max.messages": 200_000,
                "delivery.timeout.ms": 30_000,
                "retry.backoff.ms": 20,
            }
        )
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="producer", daemon=True)
        self._poller.start()

    def send(  # a record has six parts
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        on_delivery: Delivered | None = None,
    ) -> None:
        """Queue a record; wait only while the queue is full.

        Raises
        ------
        PayloadTooLarge
            If the record is larger than a broker takes.
        TopicError
            If the record cannot be queued at all.
        """
        arguments = {} if partition is None else {"partition": partition}
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    key=key,
                    headers=headers,  # type: ignore[arg-type]  # the stub's list is invariant
                    on_delivery=on_delivery,
                    **arguments,  # type: ignore[arg-type]
                )
            except BufferError:
                # The poll thread drains the queue; this only yields to it.
                self._closed.wait(_FULL_QUEUE_WAIT_S)
            except KafkaException as error:
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
    ) -> RecordRef:
        """Send a record and wait until the broker has it.

        Returns
        -------
        RecordRef
            Where it stands.
        """
        done = self._future(topic, value, key=key, headers=headers, partition=partition)
        return await asyncio.wrap_future(done)

    def deliver_blocking(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
    ) -> RecordRef:
        """Do as `deliver` does, from a thread that may wait."""
        return self._future(topic, value, key=key, headers=headers, partition=partition).result()

    def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged; return how many records are not after `timeout_s`."""
        return self._producer.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush and stop; return how many records were not acknowledged in time."""
        left = self.flush(timeout_s)
        self._closed.set()
        self._poller.join(_POLL_S * 5)
        return left

    def _future(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None,
        headers: list[tuple[str, bytes]] | None,
        partition: int | None,
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

        self.send(topic, value, key=key, headers=headers, partition=partition, on_delivery=delivered)
        return done

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)


_REFUSALS = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # librdkafka's own codes begin so
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)


def is_refused(error: KafkaError) -> bool:
    """Say whether a record can never reach its topic, however often it is sent."""
    return error.code() in _REFUSALS


def delivery_error(topic: str, error: KafkaError) -> TopicError:
    """Return the exception that says why a record did not reach its topic."""
    if error.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):  # noqa: SLF001
        return BrokerUnavailable(f"a record for {topic} was not acknowledged in time ({error}): is Kafka running?")
    return TopicError(f"a record for {topic} was refused: {error}")
