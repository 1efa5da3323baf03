"""Asks where the partitions end that a source reads, without waiting for the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so

from easyremote.clock import monotonic_s, now_ms
from easyremote.topics.connection import confluent_config
from easyremote.topics.progress import Progress, Stall

if TYPE_CHECKING:
    from concurrent.futures import Future

    from easyremote.settings import Settings

__all__ = ["Ends", "Listening"]

log = structlog.get_logger(__name__)

Place = tuple[str, int]

_ASK_S = 0.5
"""Time between two questions: by so much a window that silence closes may be told later."""
_ANSWER_S = 2.0
_OVERDUE_S = _ANSWER_S + 1.0
_FAILURES = 3
"""Questions in a row without an answer, until another client asks: one that was told of no broker finds none again."""


class Ends:
    """Where partitions end for a reader of what is committed; one question at a time.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AdminClient | None = None
        self._asked: dict[TopicPartition, Future[Any]] = {}
        self._asked_ms = 0
        self._asked_s = 0.0
        self._failures = 0

    def ask(self, places: Iterable[Place]) -> None:
        """Ask, unless the last question is open."""
        if self._asked:
            return
        if self._client is None:
            self._client = AdminClient(confluent_config(self._settings))
        newest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # Any: the package types it as it may be None
        self._asked_ms, self._asked_s = now_ms(), monotonic_s()
        try:
            self._asked = self._client.list_offsets(
                {TopicPartition(*place): newest for place in places},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_ANSWER_S,
            )
        except KafkaException as error:
            self._failed(error)

    def answer(self) -> tuple[int, dict[Place, int]] | None:
        """Return when was asked, by the wall clock, ms, and the ends that were told; None: nothing yet."""
        asked = self._asked
        if not asked:
            return None
        if not all(future.done() for future in asked.values()):
            if monotonic_s() - self._asked_s > _OVERDUE_S:
                self._failed(None)
            return None
        self._asked = {}
        errors = {place: future.exception() for place, future in asked.items()}
        ends = {
            (place.topic, place.partition): future.result().offset
            for place, future in asked.items()
            if errors[place] is None and future.result().offset >= 0  # cut off, it tells none, and no error
        }
        if not ends:
            self._failed(next(iter(errors.values())))
            return None
        self._failures = 0
        return self._asked_ms, ends

    def _failed(self, error: BaseException | None) -> None:
        self._asked = {}
        self._failures += 1
        log.debug("where partitions end is not told", error=str(error))
        if self._failures >= _FAILURES:
            self._client, self._failures = None, 0


class Listening(Progress):
    """How far the partitions of a source are read; it asks by itself where they end.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._ends = Ends(settings)
        self._asked_s = 0.0

    def look(self, now_s: float) -> list[Stall]:
        """Take an answer in and ask again, if it is time; return the partitions that have not moved for 10 s."""
        answer = self._ends.answer()
        stalls = [] if answer is None else self.compare(*answer, now_s)
        if now_s - self._asked_s >= _ASK_S and self.places:
            self._asked_s = now_s
            self._ends.ask(self.places)
        return stalls
