"""What the router before this one has sent on, of calls whose partition this one was given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from easyremote.clock import wall_ms
from easyremote.inference.strategies import Choice
from easyremote.topics.admin import TopicAdmin, wait_for_ends
from easyremote.topics.catalog import DEAD_LETTERS, REQUESTS, RETRIES, inference_topic
from easyremote.topics.records import RecordRef
from easyremote.topics.tails import EVERY
from easyremote.topics.wire import ATTEMPT, AVOID, CALL_ID, Address, Headers

if TYPE_CHECKING:
    from easyremote.agents.arrived import Arrived
    from easyremote.inference.routes import RecentRoutes
    from easyremote.settings import Settings
    from easyremote.topics.doneset import Place
    from easyremote.topics.events import Batch
    from easyremote.topics.tails import Tails
    from easyremote.topics.wire import Call, MalformedCall

__all__ = ["Found", "RoutedBefore", "Trace"]

Found = Mapping[bytes, Sequence[RecordRef]]
"""Where the records stand that were sent on because of others, by those."""


class Trace(Enum):
    """What a router before this one has done with a record."""

    SENT_ON = auto()
    """To a node, or to a delay topic."""
    BURIED = auto()
    """As a dead letter, and nobody was told yet."""
    ANSWERED = auto()
    """By the router itself; its dead letter, if it has one, stands too."""


class RoutedBefore:
    """Knows which records are in doubt, and looks for what they led to.

    Parameters
    ----------
    settings : Settings
        Broker, namespace.
    tails : Tails
        Looks.
    routes : RecentRoutes
        Told where calls were sent, so that a duplicate of one meets it.
    """

    def __init__(self, settings: Settings, tails: Tails, routes: RecentRoutes) -> None:
        self._settings = settings
        self._tails = tails
        self._routes = routes
        self._requests = settings.namespace + REQUESTS
        self._pools = settings.namespace + inference_topic("")
        self._onwards = [(self._pools + EVERY, None), *((settings.namespace + name, None) for name in RETRIES.values())]
        self._letters = settings.namespace + DEAD_LETTERS
        self._admin: TopicAdmin | None = None
        self._doubted_to: dict[int, int] = {}
        self.claimed: dict[int, Place] = {}
        """Where the group stood in each partition when it was given."""
        tails.seen = self._saw

    def claim(self, partitions: Sequence[int], places: dict[int, Place], stopping: threading.Event) -> None:
        """Note partitions that were given, and where they end: what stands before is in doubt."""
        self._admin = self._admin or TopicAdmin(self._settings)
        ends = wait_for_ends(self._admin, [(self._requests, number) for number in partitions], stopping)
        self._doubted_to |= {number: end for (_, number), end in ends.items()}
        self.claimed = self.claimed | places

    def concern(self, batch: Batch[list[Arrived]]) -> bool:
        """Say whether records of a batch are in doubt."""
        return batch.first_offset < self._doubted_to.get(batch.partition, 0)

    def look(self, records: Sequence[Arrived], told: Callable[[Found], object]) -> None:
        """Let `told` know, on another thread, what these records led to."""
        since_ms = min((float(one.origin.timestamp_ms) for one in records), default=wall_ms())
        marks = [one.origin.source for one in records]
        # What was refused, or answered because no node was there, may be one that would be sent on now.
        answers = {(address.topic, address.partition) for address in map(_address_of, records) if address is not None}

        def heard(found: Found, _missing: Collection[str]) -> None:
            told(found)

        self._tails.ask([*self._onwards, (self._letters, None), *answers], min(since_ms, wall_ms()), marks, heard)

    def trace_of(self, one: Arrived, found: Found) -> Trace | None:
        """Return what became of a record; None: nothing that is known of."""
        topics = {record.topic for record in found.get(one.origin.source, ())}
        address = _address_of(one)
        if address is not None and address.topic in topics:
            return Trace.ANSWERED
        if self._letters in topics:
            return Trace.BURIED
        return Trace.SENT_ON if topics else None

    def _saw(self, topic: str, partition: int, headers: Headers) -> None:
        if not topic.startswith(self._pools):
            return
        given = dict(headers)
        call_id = given.get(CALL_ID)
        if call_id is not None and AVOID not in given and given.get(ATTEMPT, b"1") == b"1":
            self._routes.put(call_id, Choice("", topic[len(self._pools) :], partition))


def _address_of(one: Arrived) -> Address | None:
    said: Call | MalformedCall = one.call or one.error
    return said.address
