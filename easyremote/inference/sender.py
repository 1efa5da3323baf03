"""Sends the items of streams to where their callers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.replying import send_reply

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.inference.jobs import Job
    from easyremote.inference.ledger import Ledger
    from easyremote.inference.streaming import Acknowledged
    from easyremote.topics.producer import RecordProducer

__all__ = ["ItemSender"]


class ItemSender:
    """Sends items, as long as their call is this node's; an item commits nothing, the final reply does.

    Parameters
    ----------
    producer : RecordProducer
        Sends.
    ledger : Ledger
        Knows whether a call is still this node's.
    lost : callable
        Told of a job that is not.
    failed : callable
        Told why an item did not reach the broker.
    """

    def __init__(
        self,
        producer: RecordProducer,
        ledger: Ledger,
        lost: Callable[[Job], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._producer = producer
        self._ledger = ledger
        self._lost = lost
        self._failed = failed

    def send(self, job: Job, record: bytes, acknowledged: Acknowledged) -> bool:
        """Send an item behind those before it; say False if the call is not this node's any more.

        `acknowledged` is told when the broker has it, or why it can never take it.
        """
        if not self._ledger.holds(job.partition, job.generation):
            self._lost(job)
            return False
        address = job.call.address

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                acknowledged(None)
            elif is_refused(error) or not self._ledger.holds(job.partition, job.generation):
                acknowledged(delivery_error(address.topic, error))
            else:
                self._failed(delivery_error(address.topic, error))

        send_reply(self._producer, address, job.call.traceparent, (job.call.id, record), delivered, in_order=True)
        return True
