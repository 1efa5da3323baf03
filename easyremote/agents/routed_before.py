"""What the router before this one has sent on, of calls whose partition this one was given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from easyremote.clock import wall_ms
from easyremote.inference.strategies import Choice
from easyremote.topics.admin import TopicAdmin, wait_for_ends
from easyremote.topics.catalog import REQUESTS, RETRIES, inference_topic
from easyremote.topics.records import RecordRef
from easyremote.topics.tails import EVERY
from easyremote.topics.wire import ATTEMPT, AVOID, CALL_ID, Headers

if TYPE_CHECKING:
    from easyremote.agents.arrived import Arrived
    from easyremote.inference.routes import RecentRoutes
    from easyremote.settings import Settings
    from easyremote.topics.doneset import Place
    from easyremote.topics.events import Batch
    from easyremote.topics.tails import Tails

__all__ = ["Found", "RoutedBefore"]

Found = Mapping[bytes, Sequence[RecordRef]]
"""Where the records stand that were sent on because of others, by those."""


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

        def heard(found: Found, _missing: Collection[str]) -> None:
            told(found)

        self._tails.ask(self._onwards, min(since_ms, wall_ms()), marks, heard)

    def was_sent_on(self, one: Arrived, found: Found) -> bool:
        """Say whether a record was sent to a node or to a delay topic."""
        return one.origin.source in found

    def _saw(self, topic: str, partition: int, headers: Headers) -> None:
        if not topic.startswith(self._pools):
            return
        given = dict(headers)
        call_id = given.get(CALL_ID)
        if call_id is not None and AVOID not in given and given.get(ATTEMPT, b"1") == b"1":
            self._routes.put(call_id, Choice("", topic[len(self._pools) :], partition))
