"""What the nodes have answered: every node follows `replies`, and `results` for the callers' own reply topics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from easyremote.inference.places import PlaceTable
from easyremote.inference.results import Answer, answer_in, key_in
from easyremote.tally import tally
from easyremote.topics.admin import TopicAdmin, wait_for_ends
from easyremote.topics.catalog import REPLIES, RESULTS
from easyremote.topics.follower import Follower
from easyremote.topics.lookup import RecordReader
from easyremote.topics.records import RecordRef
from easyremote.topics.wire import NO_HEADERS

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings

__all__ = ["AnswerWatch"]

log = structlog.get_logger(__name__)

_BACK = 20_000
"""Records of each partition that a node which starts reads: the newest; the topics keep an hour."""
_SAY_EVERY = 10
_AGAIN_S = 0.5
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

    def place_of(self, key: bytes) -> RecordRef | None:
        """Return where the answer to a call stands; what is there may be another's, if the keys' hashes are equal."""
        place = self._table.get(key)
        if place is None:
            return None
        partition = place >> _OFFSET_BITS & (1 << _PARTITION_BITS) - 1
        topic = self._topics[place >> _OFFSET_BITS + _PARTITION_BITS]
        return RecordRef(topic, partition, place & (1 << _OFFSET_BITS) - 1)

    def recall(self, place: RecordRef, key: bytes, told: Callable[[Answer | None], None]) -> None:
        """Let `told` have the answer that stands at a place, or None if it is not this call's, on another thread."""
        self._reader.ask(place, lambda message: told(None if message is None else answer_in(message, key)))

    def read(self, place: RecordRef, told: Callable[[Message | None], None]) -> None:
        """Let `told` have the record that stands at a place, or None if it cannot be read, on another thread."""
        self._reader.ask(place, told)

    def catch_up(self, stopping: threading.Event, *also: tuple[str, int]) -> dict[tuple[str, int], int]:
        """Wait until every answer that the broker has now is known, however long it is away; or until this stops.

        Returns
        -------
        dict
            Where the partitions `also` end now, which is asked for with the others.
        """
        with self._came:
            asked = [*self._next, *also]
        ends = wait_for_ends(self._admin, asked, stopping)
        behind = {one: end for one, end in ends.items() if one in self._next}
        looks = 0
        while not self._is_caught_up(behind) and not stopping.is_set():
            looks += 1
            if looks % _SAY_EVERY == 0:
                log.warning("waiting for the answers that were given before")
        return {one: end for one, end in ends.items() if one in also}

    def _is_caught_up(self, ends: dict[tuple[str, int], int]) -> bool:
        with self._came:
            return self._came.wait_for(lambda: all(self._next[one] >= end for one, end in ends.items()), _AGAIN_S)

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
            key = self._key(topic, message)
            if key is not None and partition < 1 << _PARTITION_BITS:
                keys.append(key)
                places.append(number | partition << _OFFSET_BITS | offset)
        with self._came:
            self._table.put(keys, places)
            for partition, end in ends.items():
                self._next[topic, partition] = end
            self._came.notify_all()

    def _key(self, topic: str, message: Message) -> bytes | None:
        try:
            key = key_in(message)
        except NO_HEADERS as error:
            reason = f"a header's name is no text: {error.__cause__ or error}"
        else:
            # In `replies` stand the routers' words and the items of streams too; in `results` answers alone.
            if key is not None or topic == self._topics[0]:
                return key
            reason = "it does not say which call it answers"
        tally.pass_over(topic, message.partition() or 0, message.offset() or 0, reason)
        return None
