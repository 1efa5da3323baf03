"""The one policy for requests to the broker: which errors pass by themselves, how long to wait, and what is said of it.

A worker waits for its broker as long as it takes; a command or a client says how long it has (`within_s`).
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, EasyRemoteError
from easyremote.topics.outages import OUTAGES, Outages

__all__ = ["AWAY", "JUST_MADE", "NO_LEADER", "PASSING", "Backoff", "ask", "ask_in_thread", "kafka_error", "passes"]

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

AWAY = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001  # librdkafka's own codes begin so
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)
"""Nobody answers: the broker is down, cut off, slow or on its way up."""

PASSING = AWAY | frozenset(
    {
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError._WAIT_CACHE,  # noqa: SLF001
        KafkaError._IN_PROGRESS,  # noqa: SLF001
        KafkaError._PREV_IN_PROGRESS,  # noqa: SLF001
        KafkaError._RETRY,  # noqa: SLF001
        KafkaError._PURGE_QUEUE,  # noqa: SLF001  # given back by a client that was replaced
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_CONTROLLER,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
    }
)
"""What the same request may be told once and not again."""

JUST_MADE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
"""What is said besides of a topic that has just been made: not every broker has heard of it yet."""

NO_LEADER = frozenset({KafkaError._NOENT})  # noqa: SLF001
"""What librdkafka itself says where ends of partitions are asked for that have no leader yet."""

_SAID_AFTER_S = 1.0
"""A broker that starts or hands a partition over says such things for some tenths of a second: not worth a line."""


def kafka_error(error: BaseException) -> KafkaError | None:
    """Return what the client says in an exception of it; None: it is none."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def passes(error: BaseException | KafkaError, also: Container[int] = frozenset()) -> bool:
    """Say whether the same request may well succeed later.

    Parameters
    ----------
    error : exception or KafkaError
        What came instead of an answer. An error of this package says so itself, by its class.
    also : container of int
        Codes that pass here, as `JUST_MADE` does after a topic was created.

    Examples
    --------
    >>> passes(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)), passes(KafkaError(KafkaError.TOPIC_EXCEPTION))
    (True, False)
    >>> passes(BrokerUnavailable("no Kafka answers")), passes(TimeoutError()), passes(ValueError())
    (True, True, False)
    """
    if isinstance(error, EasyRemoteError):
        return error.retriable
    if isinstance(error, TimeoutError):
        return True
    told = error if isinstance(error, KafkaError) else kafka_error(error)
    if told is None or told.fatal():
        return False
    return told.retriable() or told.code() in PASSING or told.code() in also


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a request is made again. Pure.

    Parameters
    ----------
    first_s, most_s : float
        Before the second try, and before any; it doubles in between.
    spread : float
        Share by which a wait is shortened at random, so that those that failed together do not come back together.

    Examples
    --------
    >>> [Backoff(spread=0).wait_s(attempt) for attempt in (1, 2, 3, 9)]
    [0.1, 0.2, 0.4, 3.0]
    """

    first_s: float = 0.1
    most_s: float = 3.0
    spread: float = 0.3

    def wait_s(self, attempt: int, chance: Callable[[], float] = random.random) -> float:
        """Return the wait, s, after a number of failed attempts, 1 or more."""
        full_s = min(self.most_s, self.first_s * 2.0 ** min(attempt - 1, 30))
        return full_s * (1.0 - self.spread * chance())


def ask(  # noqa: PLR0913  # what is asked, and how long and by which words one waits for it
    what: str,
    request: Callable[[], Answer],
    *,
    where: str,
    within_s: float | None = None,
    also: Container[int] = frozenset(),
    stopping: threading.Event | None = None,
    backoff: Backoff = Backoff(),  # frozen
    outages: Outages = OUTAGES,
) -> Answer:
    """Make a request to the broker, again and again while what it is told passes by itself.

    Parameters
    ----------
    what : str
        What it is for, as in "to create the topics"; for the log and the error.
    request : callable
        Makes it once; raises `KafkaException`, `TimeoutError` or an error of this package.
    where : str
        Where the broker is.
    within_s : float, optional
        How long to try; unset: as long as it takes.
    also : container of int
        Further codes that pass.
    stopping : threading.Event, optional
        Ends the waiting.

    Raises
    ------
    BrokerUnavailable
        If the time is over, or the waiting was ended.
    Exception
        What the request raised, if that does not pass.
    """
    pause = threading.Event() if stopping is None else stopping
    began, attempt, said = monotonic_s(), 0, False
    while True:
        try:
            answer = request()
        except Exception as error:
            if not passes(error, also):
                raise
            attempt += 1
            waited_s, wait_s = monotonic_s() - began, backoff.wait_s(attempt)
            told = kafka_error(error)
            if told is None or told.code() in AWAY:
                outages.away(where, what, str(error))
            elif not said and waited_s > _SAID_AFTER_S:
                log.warning("waiting for Kafka", what=what, where=where, error=str(error))
                said = True
            if (within_s is not None and waited_s + wait_s > within_s) or pause.wait(wait_s):
                raise BrokerUnavailable(
                    f"no Kafka at {where} has answered for {waited_s:.0f} s, {what} ({error}): is it running? "
                    "EASYREMOTE_KAFKA says where it is"
                ) from error
        else:
            outages.answered(where)
            if said:
                log.info("Kafka has answered", what=what, after_s=round(monotonic_s() - began, 1))
            return answer


async def ask_in_thread(what: str, request: Callable[[], Answer], *, where: str) -> Answer:
    """Do as `ask` does, as long as it takes, off the event loop; whoever cancels this ends the waiting."""
    stopping = threading.Event()
    try:
        return await asyncio.to_thread(partial(ask, what, request, where=where, stopping=stopping))
    except asyncio.CancelledError:
        stopping.set()  # the program cannot end before its threads do
        raise
