"""What the nodes have answered: every node follows `replies`, and `results` for the callers' own reply topics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from easyremote.clock import monotonic_s
from easyremote.errors import TopicError
from easyremote.inference.places import PlaceTable
from easyremote.inference.results import Answer, answer_in
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import REPLIES, RESULTS
from easyremote.topics.follower import Follower
from easyremote.topics.lookup import RecordReader
from easyremote.topics.records import RecordRef
from easyremote.topics.tally import tally

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings

__all__ = ["AnswerWatch"]

log = structlog.get_logger(__name__)

_BACK = 20_000
"""Records of each partition that a node which starts reads: the newest; the topics keep an hour."""
_OFFSET_BITS = 48
_PARTITION_BITS = 14


class AnswerWatch:
    """Knows where the answers to the last calls stand, and reads one when it is asked for.

    Parameters
    ----------
    settings : Settings
        Where the broker is.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._admin = TopicAdmin(settings)
        self._reader = RecordReader(settings)
        self._table = PlaceTable()
        self._came = threading.Condition()
        self._next: dict[tuple[str, int], int] = {}
        self._topics = [settings.namespace + name for name in (REPLIES, RESULTS)]
        self._followers = [self._follow(settings, topic) for topic in self._topics]

    def place_of(self, call_id: str) -> RecordRef | None:
        """Return where the answer to a call stands; what is there may be another's, if the ids' hashes are equal."""
        place = self._table.get(call_id.encode())
        if place is None:
            return None
        partition = place >> _OFFSET_BITS & (1 << _PARTITION_BITS) - 1
        topic = self._topics[place >> _OFFSET_BITS + _PARTITION_BITS]
        return RecordRef(topic, partition, place & (1 << _OFFSET_BITS) - 1)

    def recall(self, place: RecordRef, call_id: str, told: Callable[[Answer | None], None]) -> None:
        """Let `told` have the answer that stands at a place, or None if it is not this call's, on another thread."""
        self._reader.ask(place, lambda message: told(None if message is None else _answer_in(message, call_id)))

    def catch_up(self, timeout_s: float) -> bool:
        """Wait until every answer that the broker has now is known; say whether it is, within `timeout_s`."""
        deadline = monotonic_s() + timeout_s
        with self._came:
            asked = list(self._next)
        try:
            ends = self._admin.ends(asked)
        except TopicError as error:
            log.warning("what was answered before is not known", error=str(error))
            return False
        with self._came:
            return self._came.wait_for(
                lambda: all(self._next[one] >= end for one, end in ends.items()), max(0.0, deadline - monotonic_s())
            )

    def close(self) -> None:
        """Stop following."""
        for follower in self._followers:
            follower.close()
        self._reader.close()

    def _follow(self, settings: Settings, topic: str) -> Follower:
        number = self._topics.index(topic) << _OFFSET_BITS + _PARTITION_BITS

        def receive(messages: Sequence[Message]) -> None:
            self._receive(topic, number, messages)

        follower = Follower(settings, topic, receive, start="end", back=_BACK, gather=True)
        with self._came:
            for partition, start in follower.starts.items():
                self._next.setdefault((topic, partition), start)
        return follower

    def _receive(self, topic: str, number: int, messages: Sequence[Message]) -> None:
        keys, places, ends = [], [], {}
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            ends[partition] = offset + 1
            key = message.key()
            if isinstance(key, bytes) and partition < 1 << _PARTITION_BITS:
                keys.append(key)
                places.append(number | partition << _OFFSET_BITS | offset)
        with self._came:
            self._table.put(keys, places)
            for partition, end in ends.items():
                self._next[topic, partition] = end
            self._came.notify_all()


def _answer_in(message: Message, call_id: str) -> Answer | None:
    # Whoever may write there may write anything; what is no answer is none, and the call is run.
    try:
        return answer_in(message, call_id)
    except (ValueError, TypeError, OverflowError) as error:
        tally.pass_over(message.topic() or "", message.partition() or 0, message.offset() or 0, error)
        return None
