"""The delay topics: a call that has to wait stands in one of them and comes back to `requests` when it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from easyremote.clock import now_ms
from easyremote.topics.catalog import REQUESTS
from easyremote.topics.producer import delivery_error
from easyremote.topics.source import Batch, BatchSource, Revoked, SourceEvent
from easyremote.topics.wire import headers_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["Retries", "keep_messages"]


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
        self._requests = settings.namespace + REQUESTS
        self._producer = producer
        self._delay_ms = delay_ms
        self._failed = failed

    async def handle(self, event: SourceEvent[list[Message]], source: BatchSource[list[Message]]) -> None:
        """Deal with one event of the source; waits for the records to be due, which pauses only this topic."""
        if isinstance(event, Revoked):
            event.done.set()
        elif isinstance(event, Batch):
            for message in event.content:
                await self._send_back(message, event.partition, source)
            source.finished()

    async def _send_back(self, message: Message, partition: int, source: BatchSource[list[Message]]) -> None:
        wait_ms = message.timestamp()[1] + self._delay_ms - now_ms()
        if wait_ms > 0:
            await asyncio.sleep(wait_ms / 1000)
        if partition not in source.partitions:
            return  # whoever holds the partition now sends it back
        offset = message.offset() or 0

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                source.commit({partition: offset + 1})
            else:
                self._failed(delivery_error(self._requests, error))

        self._producer.send(
            self._requests,
            message.value(),
            key=message.key(),
            headers=headers_of(message),
            on_delivery=delivered,
        )
