"""Notices a Kafka client that has forgotten every broker, and lets another one go on in its place.

While all brokers of a cluster shut down in good order they tell that there are none; a client that asks just then lets
go of each, and has nobody left to ask when they are back: librdkafka's issue 5301, `docs/decisions/0017`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from easyremote.topics.outages import OUTAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Consumer, TopicPartition

__all__ = ["KnownBrokers", "hand_over"]

_REPORT_MS = 2_000
_UP = ("UP", "UPDATE")
_ENOUGH = 2
"""Reports without a broker in a row: one may fall between the leaving of the old ones and the naming of the new."""


class _Broker(msgspec.Struct):
    source: str
    state: str = "DOWN"


class _Report(msgspec.Struct):
    brokers: dict[str, _Broker]


_decode_report = msgspec.json.Decoder(_Report).decode
"""Made with the module, as every decoder of a class is: two threads that are the first to decode one crash msgspec."""


class KnownBrokers:
    """Says whether one client still knows a broker, by what it reports of itself while it is polled.

    Examples
    --------
    >>> known = KnownBrokers()
    >>> known.look('{"brokers": {"a:9092/1": {"source": "learned"}, "coordinator": {"source": "logical"}}}')
    >>> known.are_forgotten
    False
    >>> for _ in range(2):
    ...     known.look('{"brokers": {"coordinator": {"source": "logical"}}}')
    >>> known.are_forgotten
    True
    """

    def __init__(self) -> None:
        self._without = 0

    @property
    def client(self) -> dict[str, Any]:  # Any: librdkafka's settings are strings, numbers, booleans and functions
        """What the client is made with besides its own settings."""
        return {"statistics.interval.ms": _REPORT_MS, "stats_cb": self.look}

    @property
    def are_forgotten(self) -> bool:
        """Whether the client has none left; it will not find one again."""
        return self._without >= _ENOUGH

    def look(self, report: str) -> None:
        """Take a report: librdkafka's statistics, as JSON."""
        brokers = _decode_report(report).brokers
        # A coordinator is a role, which a broker that is known by its own name takes on.
        known = {name: broker for name, broker in brokers.items() if broker.source != "logical"}
        self._without = 0 if known else self._without + 1
        OUTAGES.look(
            {name.rpartition("://")[2].partition("/")[0]: broker.state in _UP for name, broker in known.items()}
        )


def hand_over(former: Consumer, to: Consumer, starts: Sequence[TopicPartition]) -> None:
    """Let a consumer read on where another one stands, which is closed; both choose their partitions themselves.

    Parameters
    ----------
    former, to : Consumer
        The old one and a new one.
    starts : sequence of TopicPartition
        All that the old one reads, and where it began.
    """
    for start, place in zip(starts, former.position([*starts]), strict=True):
        start.offset = place.offset if place.offset >= 0 else start.offset  # or it has read nothing of it yet
    to.assign([*starts])
    former.close()
