"""The router: every call of `requests` goes to a node, waits for one, or is answered with why it cannot."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from functools import partial
from typing import TYPE_CHECKING

import structlog

from easyremote.agents.arrived import Arrived
from easyremote.agents.routed_before import RoutedBefore, Trace
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
from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.refusing import Refusal, Refusals
from easyremote.topics.reply_topics import ReplyTopics
from easyremote.topics.source import BatchSource
from easyremote.topics.wire import SOURCE, Call, MalformedCall, headers_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.agents.routed_before import Found
    from easyremote.inference.nodes import NodeWatch
    from easyremote.settings import Settings
    from easyremote.topics.certain import CertainProducer
    from easyremote.topics.doneset import Place
    from easyremote.topics.tails import Tails
    from easyremote.topics.wire import Address

__all__ = ["Router"]

log = structlog.get_logger(__name__)

_HANDOVER_S = 3.0
_UNSURE_S = 0.05
_WAIT_FOR_NODE_MS = min(RETRIES)


class _Pending:
    """Counts the records of one batch that have not led to what they should, and says when all have."""

    __slots__ = ("_done", "_left", "_lock", "generation", "holds", "in_doubt")

    def __init__(self, count: int, done: Callable[[], None], holds: Callable[[], bool], *, in_doubt: bool) -> None:
        self._left = count
        self._lock = threading.Lock()  # the producer's poll threads and whoever flushes it report
        self._done = done
        self.holds = holds
        """Whether the batch is still this router's."""
        self.in_doubt = in_doubt

    def one(self) -> None:
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._done()


class Router:
    """Routes batches of calls; a batch is committed when everything it led to is acknowledged.

    What stood in a partition when it was given to this router may have been routed by the one before, so for each such
    record it is looked up first where it was sent; meanwhile the calls behind it wait.

    Parameters
    ----------
    settings : Settings
        Node id, namespace, limits.
    producer : CertainProducer
        Sends on.
    tails : Tails
        Looks for what was sent on.
    nodes : NodeWatch
        Who is alive and offers what.
    failed : callable
        Told, on any thread, when a record could not be sent on: nothing of its batch is committed.
    cancelled : container of str
        The calls that were withdrawn: they are answered and not sent on.
    reply_topics : ReplyTopics, optional
        Which topics calls may name for their replies; unset: the settings' own.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # what it sends by, what it knows, and whom it tells
        self,
        settings: Settings,
        producer: CertainProducer,
        tails: Tails,
        nodes: NodeWatch,
        failed: Callable[[Exception], None],
        cancelled: Container[str] = frozenset(),
        reply_topics: ReplyTopics | None = None,
    ) -> None:
        self._settings = settings
        self._cancelled = cancelled
        self._producer = producer
        self._tails = tails
        self._nodes = nodes
        self._failed = failed
        self._ledger = Ledger()
        self._routes = RecentRoutes()
        self._reply_topics = reply_topics or ReplyTopics(settings)
        self._refusals = Refusals(settings, producer, tails)
        self._doubts = RoutedBefore(settings, tails, self._routes)
        self._waiting: deque[tuple[Batch[list[Arrived]], int]] = deque()
        self._asked = False
        self._retry_topic = settings.namespace + RETRIES[_WAIT_FOR_NODE_MS]

    def claim(self, partitions: tuple[int, ...], places: dict[int, Place], stopping: threading.Event) -> None:
        """Note what is given to this router, and what of it is in doubt; on the source's thread."""
        self._doubts.claim(partitions, places, stopping)

    def standing(self) -> dict[int, Place]:
        """Return where each partition stands."""
        return self._doubts.claimed | self._ledger.standing()

    async def handle(self, event: SourceEvent[list[Arrived]], source: BatchSource[list[Arrived]]) -> None:
        """Deal with one event of the source."""
        if isinstance(event, Batch):
            unseen = self._reply_topics.unseen((one.call or one.error).address for one in event.content)
            if unseen:
                await asyncio.to_thread(self._reply_topics.learn, unseen)
            generation = self._ledger.take_batch(event.partition, event.first_offset, event.next_offset)
            if self._waiting or self._doubts.concern(event) or not source.tenure.is_sure():
                self._waiting.append((event, generation))
                self._go_on(source)
            else:
                self._route_batch(event, generation, source, None)
        elif isinstance(event, Assigned):
            self._ledger.assign(event.partitions)
        elif isinstance(event, Revoked):
            if not event.lost:
                await asyncio.to_thread(self._producer.flush, _HANDOVER_S)
                source.commit(self._ledger.committable())
            self._ledger.drop(event.partitions)
            event.done.set()

    def _go_on(self, source: BatchSource[list[Arrived]]) -> None:
        # One after the other: a call sent twice must meet itself, so none overtakes one that is in doubt.
        loop = asyncio.get_running_loop()
        while self._waiting and not self._asked:
            if not source.tenure.is_sure():
                self._asked = True
                loop.call_later(_UNSURE_S, self._ask_again, source)
                return
            batch, generation = self._waiting[0]
            if not self._ledger.holds(batch.partition, generation):
                self._waiting.popleft()
                source.finished()
            elif self._doubts.concern(batch):
                self._asked = True
                self._doubts.look(batch.content, partial(self._knows, loop, source))
            else:
                self._waiting.popleft()
                self._route_batch(batch, generation, source, None)

    def _ask_again(self, source: BatchSource[list[Arrived]]) -> None:
        self._asked = False
        self._go_on(source)

    def _knows(self, loop: asyncio.AbstractEventLoop, source: BatchSource[list[Arrived]], found: Found) -> None:
        loop.call_soon_threadsafe(self._go_on_knowing, source, found)

    def _go_on_knowing(self, source: BatchSource[list[Arrived]], found: Found) -> None:
        self._asked = False
        batch, generation = self._waiting.popleft()
        if self._ledger.holds(batch.partition, generation):
            self._route_batch(batch, generation, source, found)
        else:
            source.finished()
        self._go_on(source)

    def _route_batch(
        self, batch: Batch[list[Arrived]], generation: int, source: BatchSource[list[Arrived]], found: Found | None
    ) -> None:
        def done() -> None:
            self._ledger.finish(batch.partition, generation, batch.first_offset, ran=False)
            source.commit(self._ledger.committable())
            source.finished()

        def holds() -> bool:
            return self._ledger.holds(batch.partition, generation)

        if not batch.content:
            done()
            return
        pending = _Pending(len(batch.content), done, holds, in_doubt=found is not None)
        now = time.time_ns() / 1e6
        for one in batch.content:
            trace = None if found is None else self._doubts.trace_of(one, found)
            try:
                if trace is None:
                    self._route(one, now, pending)
                else:
                    self._complete(one, trace, pending)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is about this record, the others go on
                self._refuse(one, error, pending)

    def _complete(self, one: Arrived, trace: Trace, pending: _Pending) -> None:
        if trace is Trace.BURIED:
            # Of all reasons only the last one passes by itself.
            self._check(one)
            raise _unknown(one.call)
        pending.one()

    def _check(self, one: Arrived) -> None:
        if one.error is not None:
            raise one.error
        fault = self._reply_topics.fault(one.call.address)
        if fault is not None:
            raise fault
        size = len(one.message.value())
        if size > self._settings.max_payload_bytes:
            raise PayloadTooLarge(
                f"the request has {size} bytes, the limit is {self._settings.max_payload_bytes} bytes "
                "(EASYREMOTE_MAX_PAYLOAD_BYTES)"
            )

    def _route(self, one: Arrived, now: float, pending: _Pending) -> None:
        self._check(one)
        call: Call = one.call
        if not self._nodes.knows(call.function) and not call.is_late(now):
            raise _unknown(call)
        name = call.id.encode() if call.attempt == 1 and call.avoid is None else _name_of_try(one)
        choice = None if name is None else self._routes.get(name)
        if choice is None:
            choice = self._nodes.choose(call)
        # Late or withdrawn, it may have been answered: a node knows, and says the one or the other.
        if choice is None and call.id in self._cancelled:
            self._answer(one, CallCancelled(f"the call of {call.function} was withdrawn"), pending)
        elif choice is None and call.is_late(now):
            self._answer(one, self._too_late(call, now), pending)
        elif choice is None:
            headers = call.headers(source=one.origin.source)
            self._send(self._retry_topic, one, pending, headers, key=call.id)
        else:
            if name is not None:
                self._routes.put(name, choice)
            headers = call.headers(routed_ms=time.time_ns() / 1e6, source=one.origin.source)
            topic = self._settings.namespace + inference_topic(choice.pool)
            self._send(topic, one, pending, headers, partition=choice.partition)

    def _send(  # a record has six parts
        self,
        topic: str,
        one: Arrived,
        pending: _Pending,
        headers: list[tuple[str, bytes]],
        *,
        key: str | None = None,
        partition: int | None = None,
    ) -> None:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                pending.one()
            elif pending.holds() and is_refused(error):
                self._refuse(one, delivery_error(topic, error), pending)
            elif pending.holds():
                self._failed(delivery_error(topic, error))

        self._producer.send(
            topic,
            one.message.value(),
            key=key,
            headers=headers,
            partition=partition,
            on_delivery=delivered,
            wanted=pending.holds,
        )

    def _too_late(self, call: Call, now: float) -> EasyRemoteError:
        late_ms = now - (call.deadline_ms or 0)
        if not self._nodes.knows(call.function):
            return DeadlineExceeded(f"the deadline of {call.function} passed {late_ms:.0f} ms before it was routed")
        model = "" if call.model is None else f" with model {call.model!r}"
        where = "" if call.target is None else f" (target {call.target!r})"
        return NoNodeAvailable(
            f"no live node{where} offered {call.function}{model} until the deadline, {late_ms:.0f} ms ago: is one "
            "running?"
        )

    def _refuse(self, one: Arrived, error: Exception, pending: _Pending) -> None:
        told: Call | MalformedCall = one.call or one.error
        address, call_id = told.address, told.id if isinstance(told, Call) else told.call_id
        log.warning("a call is refused", call=call_id, error=str(error))
        is_told = address is not None and self._reply_topics.fault(address) is None
        self._tell(one, error, pending, call_id, address if is_told else None, is_letter=True)

    def _answer(self, one: Arrived, error: EasyRemoteError, pending: _Pending) -> None:
        self._tell(one, error, pending, one.call.id, one.call.address, is_letter=False)

    def _tell(  # what is told, of what, and to whom
        self,
        one: Arrived,
        error: Exception,
        pending: _Pending,
        call_id: str,
        address: Address | None,
        *,
        is_letter: bool,
    ) -> None:
        def done(failure: KafkaError | None) -> None:
            if failure is None:
                pending.one()
            elif pending.holds():
                self._failed(delivery_error("replies or dead letters", failure))

        call = one.call
        refusal = Refusal(
            one.message,
            one.origin,
            error,
            call_id,
            address,
            function=call.function if call is not None else getattr(error, "function", None),
            traceparent=(call or one.error).traceparent,
            attempts=None if call is None else call.attempt,
            is_letter=is_letter,
        )
        self._refusals.refuse(refusal, done, wanted=pending.holds, in_doubt=pending.in_doubt)


def _unknown(call: Call) -> UnknownFunction:
    return UnknownFunction(
        f"no node has ever offered a function {call.function!r}: 'easyremote status' lists what there is"
    )


def _name_of_try(one: Arrived) -> bytes | None:
    # A try after a failure goes elsewhere; the same try, which a delay topic or a node has sent twice, to the same.
    return dict(headers_of(one.message)).get(SOURCE)
