"""The delay topics: a call that has to wait stands in one of them and comes back to `requests` when it is due."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from easyremote.clock import now_ms
from easyremote.errors import PayloadTooLarge, TopicError
from easyremote.inference.ledger import Ledger
from easyremote.tally import tally
from easyremote.topics.catalog import REQUESTS
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent
from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.refusing import Refusal, Refusals
from easyremote.topics.source import BatchSource
from easyremote.topics.wire import DEADLINE_MS, SOURCE, Origin, headers_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.settings import Settings
    from easyremote.topics.certain import CertainProducer
    from easyremote.topics.doneset import Place
    from easyremote.topics.records import RecordRef
    from easyremote.topics.tails import Tails

__all__ = ["Retries", "keep_messages"]

_DIGITS = 16
"""Of no time that will ever come, ms since the epoch."""
_CLOCKS_MS = 5_000
"""How far the clocks of machines may be apart."""
_UNSURE_MS = 100


def keep_messages(_partition: int, messages: Sequence[Message]) -> list[Message]:
    """Decode nothing: what waits is passed on as it is."""
    return list(messages)


class Retries:
    """Sends what waits in one delay topic back to `requests`, each record when its delay is over, and once.

    What was due when its partition was given to this worker may have been sent back by the one before, so it is looked
    for first.

    Parameters
    ----------
    settings : Settings
        The namespace.
    producer : CertainProducer
        Sends back.
    tails : Tails
        Looks for what was sent back.
    topic : str
        Full name of the delay topic.
    delay_ms : int
        Its delay, counted from when the broker took the record, ms.
    failed : callable
        Told, on any thread, when a record could not be sent back: it stays where it is.
    """

    def __init__(  # what it reads, what it sends by, and whom it tells
        self,
        settings: Settings,
        producer: CertainProducer,
        tails: Tails,
        topic: str,
        delay_ms: int,
        failed: Callable[[Exception], None],
    ) -> None:
        self._requests = settings.namespace + REQUESTS
        self._producer = producer
        self._tails = tails
        self._topic = topic
        self._refusals = Refusals(settings, producer, tails)
        self._delay_ms = delay_ms
        self._failed = failed
        self._ledger = Ledger()
        self._claimed: dict[int, Place] = {}
        self._given_ms: dict[int, int] = {}
        self._timers: dict[int, dict[int, asyncio.TimerHandle]] = {}

    def claim(self, partitions: tuple[int, ...], places: dict[int, Place], _stopping: threading.Event) -> None:
        """Note that partitions were given to this worker; on the source's thread."""
        self._claimed = self._claimed | places
        self._given_ms |= dict.fromkeys(partitions, now_ms())

    def standing(self) -> dict[int, Place]:
        """Return where each partition stands."""
        return self._claimed | self._ledger.standing()

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
            if not source.tenure.is_sure():
                wait_ms = max(wait_ms, _UNSURE_MS)  # this process was stopped: another one may hold the partition
            if wait_ms > 0:
                timers[batch.first_offset] = asyncio.get_running_loop().call_later(
                    wait_ms / 1000, self._send_due, batch, generation, waiting, source
                )
                return
            self._look_and_send_back(waiting.popleft(), batch.partition, generation, source)
        source.finished()

    def _due_ms(self, message: Message) -> int:
        # Its caller waits for a word no longer than to its deadline.
        due_ms = message.timestamp()[1] + self._delay_ms
        deadline = dict(headers_of(message)).get(DEADLINE_MS, b"")
        return min(due_ms, int(deadline)) if deadline.isdigit() and len(deadline) < _DIGITS else due_ms

    def _look_and_send_back(
        self, message: Message, partition: int, generation: int, source: BatchSource[list[Message]]
    ) -> None:
        offset = message.offset() or 0
        due_ms = self._due_ms(message)
        origin = Origin(self._topic, partition, offset, due_ms)
        if due_ms > self._given_ms.get(partition, -_CLOCKS_MS) + _CLOCKS_MS:
            self._send_back(message, origin, generation, source)
            return

        def told(found: Mapping[bytes, Sequence[RecordRef]], _missing: Collection[str]) -> None:
            if found:
                self._finish(origin, generation, source)
            else:
                self._send_back(message, origin, generation, source)

        self._tails.ask([(self._requests, None)], due_ms, [origin.source], told)

    def _send_back(self, message: Message, origin: Origin, generation: int, source: BatchSource[list[Message]]) -> None:
        def holds() -> bool:
            return self._ledger.holds(origin.partition, generation)

        def bury(reason: Exception) -> None:
            # Nobody but who writes there by hand sends what `requests` has no room for.
            tally.bury(self._topic, 1, 1)
            self._refusals.refuse(Refusal(message, origin, reason, call_id=None, address=None), finished, wanted=holds)

        def finished(error: KafkaError | None) -> None:
            if error is None:
                self._finish(origin, generation, source)
            elif holds():
                self._failed(delivery_error(self._requests, error))

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None and is_refused(error):
                bury(delivery_error(self._requests, error))
            else:
                finished(error)

        if not holds():
            return
        headers = [*(one for one in headers_of(message) if one[0] != SOURCE), (SOURCE, origin.source)]
        try:
            self._producer.send(
                self._requests, message.value(), key=message.key(), headers=headers, on_delivery=delivered, wanted=holds
            )
        except (PayloadTooLarge, TopicError) as error:
            bury(error)

    def _finish(self, origin: Origin, generation: int, source: BatchSource[list[Message]]) -> None:
        self._ledger.finish(origin.partition, generation, origin.offset, ran=False)
        source.commit(self._ledger.committable())
