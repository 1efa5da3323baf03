"""The delay topics: a call that has to wait stands in one of them and comes back to `requests` when it is due."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from easyremote.clock import now_ms
from easyremote.errors import PayloadTooLarge, TopicError
from easyremote.inference.ledger import Ledger
from easyremote.topics.catalog import REQUESTS
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent
from easyremote.topics.letters import Failure
from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.records import RecordRef
from easyremote.topics.replying import dead_letter
from easyremote.topics.source import BatchSource
from easyremote.topics.tally import tally
from easyremote.topics.wire import DEADLINE_MS, headers_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["Retries", "keep_messages"]

_DIGITS = 16
"""Of no time that will ever come, ms since the epoch."""


def keep_messages(_partition: int, messages: Sequence[Message]) -> list[Message]:
    """Decode nothing: what waits is passed on as it is."""
    return list(messages)


class Retries:
    """Sends what waits in one delay topic back to `requests`, each record when its delay is over.

    Parameters
    ----------
    settings : Settings
        The namespace.
    producer : RecordProducer
        Sends back.
    delay_ms : int
        The topic's delay, counted from when the broker took the record, ms.
    failed : callable
        Told, on any thread, when a record could not be sent back: it stays where it is.
    """

    def __init__(
        self, settings: Settings, producer: RecordProducer, delay_ms: int, failed: Callable[[Exception], None]
    ) -> None:
        self._namespace, self._node_id = settings.namespace, settings.node_id
        self._requests = settings.namespace + REQUESTS
        self._producer = producer
        self._delay_ms = delay_ms
        self._failed = failed
        self._ledger = Ledger()
        self._timers: dict[int, dict[int, asyncio.TimerHandle]] = {}

    async def handle(self, event: SourceEvent[list[Message]], source: BatchSource[list[Message]]) -> None:
        """Deal with one event of the source; what is not due yet gets a timer, so nothing behind it has to wait."""
        if isinstance(event, Assigned):
            self._ledger.assign(event.partitions)
        elif isinstance(event, Revoked):
            self._let_go(event, source)
        elif isinstance(event, Batch):
            generation, _ = self._ledger.take(event.partition, [message.offset() or 0 for message in event.content])
            self._send_due(event, generation, deque(sorted(event.content, key=self._due_ms)), source)

    def _let_go(self, event: Revoked, source: BatchSource[list[Message]]) -> None:
        # Whoever holds the partitions next sends back what still waits here.
        for number in event.partitions:
            for timer in self._timers.pop(number, {}).values():
                timer.cancel()
                source.finished()
        if not event.lost:
            source.commit(self._ledger.committable())
        self._ledger.drop(event.partitions)
        event.done.set()

    def _send_due(
        self,
        batch: Batch[list[Message]],
        generation: int,
        waiting: deque[Message],
        source: BatchSource[list[Message]],
    ) -> None:
        timers = self._timers.setdefault(batch.partition, {})
        timers.pop(batch.first_offset, None)
        while waiting:
            wait_ms = self._due_ms(waiting[0]) - now_ms()
            if wait_ms > 0:
                timers[batch.first_offset] = asyncio.get_running_loop().call_later(
                    wait_ms / 1000, self._send_due, batch, generation, waiting, source
                )
                return
            self._send_back(waiting.popleft(), batch.partition, generation, source)
        source.finished()

    def _due_ms(self, message: Message) -> int:
        # Its caller waits for a word no longer than to its deadline.
        due_ms = message.timestamp()[1] + self._delay_ms
        deadline = dict(headers_of(message)).get(DEADLINE_MS, b"")
        return min(due_ms, int(deadline)) if deadline.isdigit() and len(deadline) < _DIGITS else due_ms

    def _send_back(self, message: Message, partition: int, generation: int, source: BatchSource[list[Message]]) -> None:
        offset = message.offset() or 0

        def bury(reason: Exception) -> None:
            # Nobody but who writes there by hand sends what `requests` has no room for.
            tally.bury(source.topic, 1, 1)
            dead_letter(
                self._producer,
                self._namespace,
                (message.key(), message.value(), headers_of(message)),
                RecordRef(source.topic, partition, offset),
                reason,
                finished,
                failure=Failure(node_id=self._node_id),
            )

        def finished(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self._ledger.finish(partition, generation, offset, ran=False)
                source.commit(self._ledger.committable())
            else:
                self._failed(delivery_error(self._requests, error))

        def delivered(error: KafkaError | None, acknowledged: Message) -> None:
            if error is not None and is_refused(error):
                bury(delivery_error(self._requests, error))
            else:
                finished(error, acknowledged)

        try:
            self._producer.send(
                self._requests, message.value(), key=message.key(), headers=headers_of(message), on_delivery=delivered
            )
        except (PayloadTooLarge, TopicError) as error:
            bury(error)
