"""The router: every call of `requests` goes to a node, waits for one, or is answered with why it cannot."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from easyremote.errors import (
    CallCancelled,
    DeadlineExceeded,
    EasyRemoteError,
    NoNodeAvailable,
    PayloadTooLarge,
    UnknownFunction,
)
from easyremote.inference.ledger import Ledger
from easyremote.inference.routes import RecentRoutes
from easyremote.topics.catalog import RETRIES, inference_topic
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent
from easyremote.topics.letters import Failure, stack_of
from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.records import RecordRef
from easyremote.topics.reply_topics import ReplyTopics
from easyremote.topics.replying import dead_letter, encode_reply, error_reply, send_reply
from easyremote.topics.source import BatchSource
from easyremote.topics.tally import tally
from easyremote.topics.wire import Address, Call, MalformedCall, Origin, headers_of, read_call

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.inference.nodes import NodeWatch
    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["Arrived", "Router", "decode_arrived"]

log = structlog.get_logger(__name__)

_HANDOVER_S = 3.0
_WAIT_FOR_NODE_MS = min(RETRIES)


class Arrived(msgspec.Struct, frozen=True):
    """A record of `requests`: the message, where it stood, and the call it holds or why it holds none."""

    message: Any  # Any: msgspec must not look into the client's class
    origin: Origin
    call: Any
    error: Any = None


def decode_arrived(topic: str, namespace: str) -> Callable[[int, Sequence[Message]], list[Arrived]]:
    """Return the decoder of a source of calls; a record that is no request is told apart, not dropped."""

    def decode(partition: int, messages: Sequence[Message]) -> list[Arrived]:
        arrived = []
        for message in messages:
            origin = Origin(topic, partition, message.offset() or 0, message.timestamp()[1])
            call = read_call(message.value(), headers_of(message), origin, namespace)
            if isinstance(call, MalformedCall):
                arrived.append(Arrived(message, origin, None, call))
                tally.bury(topic, 1, 1)
            else:
                arrived.append(Arrived(message, origin, call))
                if tally.streaks:
                    tally.well(topic)
        return arrived

    return decode


class _Pending:
    """Counts the records of one batch that the broker has not acknowledged, and says when all are."""

    __slots__ = ("_acknowledged", "_failed", "_left", "_lock")

    def __init__(self, count: int, acknowledged: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._left = count
        self._lock = threading.Lock()  # the producer's poll threads and whoever flushes it report
        self._acknowledged = acknowledged
        self._failed = failed

    def one(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed(delivery_error(message.topic() or "?", error))
            return
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._acknowledged()

    def soft(self, error: KafkaError | None, message: Message) -> None:
        """Count a reply that may have nowhere to go: its caller named a topic that is not there."""
        if error is not None and is_refused(error):
            log.warning("an error reply has nowhere to go", topic=message.topic(), error=str(error))
            error = None
        self.one(error, message)


class Router:
    """Routes batches of calls; a batch is committed when everything it led to is acknowledged.

    Parameters
    ----------
    settings : Settings
        Node id, namespace, limits.
    producer : RecordProducer
        Sends on.
    nodes : NodeWatch
        Who is alive and offers what.
    failed : callable
        Told, on any thread, when a record could not be sent on: nothing of its batch is committed.
    cancelled : container of str
        The calls that were withdrawn: they are answered and not sent on.
    reply_topics : ReplyTopics, optional
        Which topics calls may name for their replies; unset: the settings' own.
    """

    def __init__(
        self,
        settings: Settings,
        producer: RecordProducer,
        nodes: NodeWatch,
        failed: Callable[[Exception], None],
        cancelled: Container[str] = frozenset(),
        reply_topics: ReplyTopics | None = None,
    ) -> None:
        self._settings = settings
        self._cancelled = cancelled
        self._producer = producer
        self._nodes = nodes
        self._failed = failed
        self._ledger = Ledger()
        self._routes = RecentRoutes()
        self._reply_topics = reply_topics or ReplyTopics(settings)
        self._retry_topic = settings.namespace + RETRIES[_WAIT_FOR_NODE_MS]

    async def handle(self, event: SourceEvent[list[Arrived]], source: BatchSource[list[Arrived]]) -> None:
        """Deal with one event of the source."""
        if isinstance(event, Batch):
            unseen = self._reply_topics.unseen((one.call or one.error).address for one in event.content)
            if unseen:
                await asyncio.to_thread(self._reply_topics.learn, unseen)
            self._route_batch(event, source)
        elif isinstance(event, Assigned):
            self._ledger.assign(event.partitions)
        elif isinstance(event, Revoked):
            if not event.lost:
                await asyncio.to_thread(self._producer.flush, _HANDOVER_S)
                source.commit(self._ledger.committable())
            self._ledger.drop(event.partitions)
            event.done.set()

    def _route_batch(self, batch: Batch[list[Arrived]], source: BatchSource[list[Arrived]]) -> None:
        generation = self._ledger.take_batch(batch.partition, batch.first_offset, batch.next_offset)

        def acknowledged() -> None:
            self._ledger.finish(batch.partition, generation, batch.first_offset, ran=False)
            source.commit(self._ledger.committable())
            source.finished()

        if not batch.content:
            acknowledged()
            return
        pending = _Pending(len(batch.content), acknowledged, self._failed)
        now = time.time_ns() / 1e6
        for one in batch.content:
            try:
                self._route(one, now, pending)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is about this record, the others go on
                self._refuse(one, error, pending)

    def _route(self, one: Arrived, now: float, pending: _Pending) -> None:
        if one.error is not None:
            raise one.error
        call: Call = one.call
        fault = self._reply_topics.fault(call.address)
        if fault is not None:
            raise fault
        if call.is_late(now):
            self._expire(call, now, pending)
            return
        if call.id in self._cancelled:
            self._answer(
                call.address, call, call.id, CallCancelled(f"the call of {call.function} was withdrawn"), pending
            )
            return
        if not self._nodes.knows(call.function):
            raise UnknownFunction(
                f"no node has ever offered a function {call.function!r}: 'easyremote status' lists what there is"
            )
        value = one.message.value()
        if len(value) > self._settings.max_payload_bytes:
            raise PayloadTooLarge(
                f"the request has {len(value)} bytes, the limit is {self._settings.max_payload_bytes} bytes "
                "(EASYREMOTE_MAX_PAYLOAD_BYTES)"
            )
        # A try after a failure goes elsewhere; the same call sent again goes to where it may still be at work.
        choice = self._routes.get(call.id) if call.attempt == 1 and call.avoid is None else None
        if choice is None:
            choice = self._nodes.choose(call)
        if choice is None:
            self._producer.send(self._retry_topic, value, key=call.id, headers=call.headers(), on_delivery=pending.one)
            return
        self._routes.put(call.id, choice)
        self._producer.send(
            self._settings.namespace + inference_topic(choice.pool),
            value,
            headers=call.headers(routed_ms=time.time_ns() / 1e6),
            partition=choice.partition,
            on_delivery=pending.one,
        )

    def _expire(self, call: Call, now: float, pending: _Pending) -> None:
        late_ms = now - (call.deadline_ms or 0)
        error: EasyRemoteError
        if not self._nodes.serves(call) and self._nodes.knows(call.function):
            model = "" if call.model is None else f" with model {call.model!r}"
            where = "" if call.target is None else f" (target {call.target!r})"
            error = NoNodeAvailable(
                f"no live node{where} offered {call.function}{model} until the deadline, {late_ms:.0f} ms ago: is one "
                "running?"
            )
        else:
            error = DeadlineExceeded(f"the deadline of {call.function} passed {late_ms:.0f} ms before it was routed")
        self._answer(call.address, call, call.id, error, pending)

    def _refuse(self, one: Arrived, error: Exception, pending: _Pending) -> None:
        told: Call | MalformedCall = one.call or one.error
        address, call_id = told.address, told.id if isinstance(told, Call) else told.call_id
        log.warning("a call is refused", call=call_id, error=str(error))
        if address is not None and self._reply_topics.fault(address) is None:
            reply = self._error_reply(one.call, call_id, error)
            # The dead letter below is the acknowledgement that counts: this reply has no one else to wait for it.
            try:
                send_reply(self._producer, address, told.traceparent, (call_id, reply), _log_undelivered)
            except EasyRemoteError as failure:
                log.warning("an error reply has nowhere to go", topic=address.topic, error=str(failure))
        message = one.message
        dead_letter(
            self._producer,
            self._settings.namespace,
            (message.key(), message.value(), headers_of(message)),
            RecordRef(one.origin.topic, one.origin.partition, one.origin.offset),
            error,
            pending.one,
            failure=Failure(
                node_id=self._settings.node_id,
                call_id=call_id,
                attempts=None if one.call is None else one.call.attempt,
                stack=None if isinstance(error, EasyRemoteError) else stack_of(error),
            ),
        )

    def _answer(
        self, address: Address, call: Call | None, call_id: str, error: EasyRemoteError, pending: _Pending
    ) -> None:
        reply = self._error_reply(call, call_id, error)
        send_reply(
            self._producer,
            address,
            None if call is None else call.traceparent,
            (call_id, reply),
            pending.soft,
        )

    def _error_reply(self, call: Call | None, call_id: str, error: Exception) -> bytes:
        function = call.function if call is not None else getattr(error, "function", None)
        return encode_reply(error_reply(error, call_id=call_id, function=function, node_id=self._settings.node_id))


def _log_undelivered(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        log.warning("an error reply has nowhere to go", topic=message.topic(), error=str(error))
