"""Sends replies and the items of streams to where their callers read, as long as the calls are this node's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from easyremote.inference.results import answer_headers
from easyremote.topics.catalog import REPLIES, RESULTS
from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.replying import send_reply
from easyremote.topics.wire import IN_FLIGHT, REPLY_TOPIC

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.errors import EasyRemoteError
    from easyremote.inference.jobs import Job
    from easyremote.inference.ledger import Ledger
    from easyremote.inference.streaming import Acknowledged
    from easyremote.topics.certain import CertainProducer

__all__ = ["ItemSender", "ReplySender"]

log = structlog.get_logger(__name__)


class ReplySender:
    """Sends each call's reply once, and tells when the broker and the other nodes have it.

    Parameters
    ----------
    namespace : str
        Prefix of the topics.
    producer : CertainProducer
        Sends.
    ledger : Ledger
        Knows whether a call is still this node's.
    is_sure : callable
        `() -> bool`: whether this process is a member of its group beyond doubt; until then replies are held.
    answered : callable
        `(job, value)`: told of each reply that the broker has, or never takes; a duplicate may be answered with it.
    dropped : callable
        Told of a job that is not this node's any more, and whose reply was not sent.
    finished : callable
        Told of a job whose reply is acknowledged, so that it may be committed.
    undeliverable : callable
        `(job, error)`: takes a job whose reply can never reach its topic.
    failed : callable
        Told why no reply can reach the broker any more.
    """

    def __init__(  # noqa: PLR0913  # what it sends by, and whom it tells of each end
        self,
        namespace: str,
        producer: CertainProducer,
        ledger: Ledger,
        *,
        is_sure: Callable[[], bool],
        answered: Callable[[Job, bytes], None],
        dropped: Callable[[Job], None],
        finished: Callable[[Job], None],
        undeliverable: Callable[[Job, EasyRemoteError], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._producer = producer
        self._ledger = ledger
        self._is_sure = is_sure
        self._answered = answered
        self._dropped = dropped
        self._finished = finished
        self._undeliverable = undeliverable
        self._failed = failed
        self._replies, self._results = namespace + REPLIES, namespace + RESULTS
        self._lock = threading.Lock()
        self._held: list[tuple[Job, bytes]] = []
        self._on_their_way: set[Job] = set()

    @property
    def on_their_way(self) -> int:
        """How many replies were sent and are not acknowledged: nothing is left to do for their calls."""
        return len(self._on_their_way)

    def send(self, job: Job, value: bytes) -> None:
        """Send a reply, encoded; whoever holds the call's partition answers if it is not this node any more."""
        if not self._ledger.holds(job.partition, job.generation):
            self._dropped(job)
            return
        if not self._is_sure():
            with self._lock:
                self._held.append((job, value))
            return

        def delivered(error: KafkaError | None, _message: Message) -> None:
            self._on_their_way.discard(job)
            if error is None:
                self._answered(job, value)
                self._tell_nodes(job, value)
            elif not self._ledger.holds(job.partition, job.generation):
                log.info("a reply was not sent; who holds the partition now answers", call=job.call.id)
                self._dropped(job)
            elif is_refused(error):
                self._answered(job, value)
                self._undeliverable(job, delivery_error(job.call.address.topic, error))
            else:
                self._failed(delivery_error(job.call.address.topic, error))

        call = job.call
        self._on_their_way.add(job)
        left = max(0, self._ledger.pending - self.on_their_way)
        send_reply(
            self._producer,
            call.address,
            call.traceparent,
            (call.id, value),
            delivered,
            more=[(IN_FLIGHT, b"%d" % left), *answer_headers(call, job.fingerprint)],
            wanted=lambda: self._ledger.holds(job.partition, job.generation),
            in_order=call.stream,
        )

    def stands(self, job: Job, value: bytes | None) -> None:
        """Take a call whose reply another node has sent; None: it stood there, and cannot be read any more."""
        if value is None:
            self._dropped(job)
            self._finished(job)
            return
        self._answered(job, value)
        self._tell_nodes(job, value)

    def look(self) -> None:
        """Send what was held, if there is no doubt any more; to be called now and then."""
        if self._held and self._is_sure():
            with self._lock:
                held, self._held = self._held, []
            for job, value in held:
                self.send(job, value)

    def _tell_nodes(self, job: Job, value: bytes) -> None:
        # They follow `replies`; what went elsewhere they are told before it counts as done.
        call = job.call
        if call.address.topic == self._replies:
            self._finished(job)
            return

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None or is_refused(error):
                self._finished(job)
            elif self._ledger.holds(job.partition, job.generation):
                self._failed(delivery_error(self._results, error))

        self._producer.send(
            self._results,
            value,
            key=call.id,
            headers=[*answer_headers(call, job.fingerprint), (REPLY_TOPIC, call.address.topic.encode())],
            on_delivery=delivered,
            wanted=lambda: self._ledger.holds(job.partition, job.generation),
        )


class ItemSender:
    """Sends items, as long as their call is this node's; an item commits nothing, the final reply does.

    Parameters
    ----------
    producer : CertainProducer
        Sends.
    ledger : Ledger
        Knows whether a call is still this node's.
    lost : callable
        Told of a job that is not.
    failed : callable
        Told why no item can reach the broker any more.
    """

    def __init__(
        self,
        producer: CertainProducer,
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
            elif error.fatal():
                self._failed(delivery_error(address.topic, error))
            else:
                # Those behind it may stand there, so it cannot be sent again; the stream is, from its beginning.
                acknowledged(delivery_error(address.topic, error))

        send_reply(self._producer, address, job.call.traceparent, (job.call.id, record), delivered, in_order=True)
        return True
