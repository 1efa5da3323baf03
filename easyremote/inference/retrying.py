"""What becomes of a call that failed: another try later through a delay topic, or the dead letters.

Only who wrote the function can say that it may run twice: charging a card again is not a retry. So a failure is
tried again if, and only if, its exception says `retriable = True` (its class or the instance), or its class is in the
`retry_on` of the function or of the model; what Python or a library raises is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from easyremote.errors import EasyRemoteError
from easyremote.inference.jobs import Job, Outcome
from easyremote.topics.catalog import REQUESTS, RETRIES
from easyremote.topics.letters import Failure
from easyremote.topics.records import RecordRef
from easyremote.topics.replying import dead_letter, encode_reply, error_reply, send_reply
from easyremote.topics.wire import Call, headers_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.errors import CallError
    from easyremote.settings import Settings
    from easyremote.topics.producer import Delivered, RecordProducer
    from easyremote.topics.wire import MalformedCall, Origin

__all__ = ["FailedCalls", "next_delay_ms"]

log = structlog.get_logger(__name__)

_DELAYS_MS = tuple(sorted(RETRIES))


def next_delay_ms(attempt: int, now_ms: float, deadline_ms: int | None) -> int | None:
    """Return after which delay a call is tried again, or None if it is not.

    Parameters
    ----------
    attempt : int
        Which attempt has failed, from 1.
    now_ms : float
        Now, ms since the epoch.
    deadline_ms : int or None
        The call's deadline: a try after it would be for nothing.

    Returns
    -------
    int or None
        Delay, ms; one of the delay topics.

    Examples
    --------
    >>> [next_delay_ms(attempt, 0, None) for attempt in (1, 2, 3, 4)]
    [1000, 10000, 60000, None]
    >>> next_delay_ms(1, 500, 1_500) is None
    True
    """
    if not 1 <= attempt <= len(_DELAYS_MS):
        return None
    delay_ms = _DELAYS_MS[attempt - 1]
    return None if deadline_ms is not None and now_ms + delay_ms >= deadline_ms else delay_ms


class FailedCalls:
    """Sends calls that failed on this node to where they go next; who asks commits when it is acknowledged.

    Parameters
    ----------
    settings : Settings
        Node id and namespace.
    producer : RecordProducer
        Sends.
    topic : str
        Full name of the topic that the calls are read from.
    """

    def __init__(self, settings: Settings, producer: RecordProducer, topic: str) -> None:
        self._settings = settings
        self._producer = producer
        self._topic = topic

    def retry(self, job: Job, delay_ms: int, on_delivery: Delivered) -> None:
        """Let a call wait; it comes back through `requests`, to another node than this one if there is one."""
        call = job.call
        self._producer.send(
            self._settings.namespace + RETRIES[delay_ms],
            job.value,
            key=call.id,
            headers=call.headers(attempt=call.attempt + 1, avoid=self._settings.node_id),
            on_delivery=on_delivery,
        )

    def outcome(self, job: Job, error: Exception) -> Outcome:
        """Return how a call ends that is not run because of an error: as a dead letter, and answered."""
        call, node_id = job.call, self._settings.node_id
        reply = error_reply(error, call_id=call.id, function=call.function, node_id=node_id, attempts=call.attempt)
        return Outcome(encode_reply(reply), error, poison=True)

    def pass_on(self, job: Job, on_delivery: Delivered) -> None:
        """Send a call that is not for this node back to the router, which finds the one that it is for.

        One that this node has passed on before waits first: the router has not found another yet.
        """
        call, node_id = job.call, self._settings.node_id
        topic = RETRIES[_DELAYS_MS[0]] if call.avoid == node_id else REQUESTS
        self._producer.send(
            self._settings.namespace + topic,
            job.value,
            key=call.id,
            headers=call.headers(avoid=node_id),
            on_delivery=on_delivery,
        )

    def bury(self, job: Job, error: BaseException, on_delivery: Delivered, *, stack: str | None = None) -> None:
        """Send a call to the dead letters."""
        call = job.call
        dead_letter(
            self._producer,
            self._settings.namespace,
            (call.id, job.value, call.headers()),
            RecordRef(self._topic, job.partition, job.offset),
            error,
            on_delivery,
            failure=Failure(node_id=self._settings.node_id, call_id=call.id, attempts=call.attempt, stack=stack),
        )

    def reject(  # a record, its place, and why
        self,
        message: Message,
        origin: Origin,
        said: Call | MalformedCall,
        error: CallError,
        on_delivery: Delivered,
        *,
        is_told: bool,
    ) -> None:
        """Send a record that is not to be run to the dead letters; `is_told`: and say so where it wants its reply."""
        node_id = self._settings.node_id
        call_id = said.id if isinstance(said, Call) else said.call_id
        log.warning("a call is refused", call=call_id, error=str(error))
        if is_told and said.address is not None:
            reply = encode_reply(error_reply(error, call_id=call_id, function=said.function, node_id=node_id))
            try:
                send_reply(self._producer, said.address, said.traceparent, (call_id, reply), _log_undelivered)
            except EasyRemoteError as failure:
                log.warning("an error reply has nowhere to go", topic=said.address.topic, error=str(failure))
        dead_letter(
            self._producer,
            self._settings.namespace,
            (message.key(), message.value(), headers_of(message)),
            RecordRef(origin.topic, origin.partition, origin.offset),
            error,
            on_delivery,
            failure=Failure(node_id=node_id, call_id=call_id),
        )


def _log_undelivered(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        log.warning("an error reply has nowhere to go", topic=message.topic(), error=str(error))
