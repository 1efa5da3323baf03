"""What becomes of a call that failed: another try later through a delay topic, or the dead letters.

Only who wrote the function can say that it may run twice: charging a card again is not a retry. So a failure is
tried again if, and only if, its exception says `retriable = True` (its class or the instance), or its class is in the
`retry_on` of the function or of the model; what Python or a library raises is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from easyremote.inference.jobs import Job, Outcome
from easyremote.topics.catalog import REQUESTS, RETRIES
from easyremote.topics.letters import Failure
from easyremote.topics.records import RecordRef
from easyremote.topics.replying import dead_letter, encode_reply, error_reply
from easyremote.topics.wire import Origin

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.certain import CertainProducer
    from easyremote.topics.producer import Delivered

__all__ = ["FailedCalls", "next_delay_ms"]

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
    producer : CertainProducer
        Sends.
    topic : str
        Full name of the topic that the calls are read from.
    holds : callable
        `(job) -> bool`: whether a call is still this node's.
    """

    def __init__(self, settings: Settings, producer: CertainProducer, topic: str, holds: Callable[[Job], bool]) -> None:
        self._settings = settings
        self._producer = producer
        self._topic = topic
        self._holds = holds

    def retry(self, job: Job, delay_ms: int, on_delivery: Delivered) -> None:
        """Let a call wait; it comes back through `requests`, to another node than this one if there is one."""
        call = job.call
        self._producer.send(
            self._settings.namespace + RETRIES[delay_ms],
            job.value,
            key=call.id,
            headers=call.headers(attempt=call.attempt + 1, avoid=self._settings.node_id, source=self._source_of(job)),
            on_delivery=on_delivery,
            wanted=lambda: self._holds(job),
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
            headers=call.headers(avoid=node_id, source=self._source_of(job)),
            on_delivery=on_delivery,
            wanted=lambda: self._holds(job),
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
            wanted=lambda: self._holds(job),
        )

    def _source_of(self, job: Job) -> bytes:
        return Origin(self._topic, job.partition, job.offset, 0).source
