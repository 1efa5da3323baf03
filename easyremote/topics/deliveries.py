"""How outputs, state and positions become durable together, and what happens when the process dies in the middle."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaError, Message, Producer

from easyremote.errors import BrokerUnavailable
from easyremote.topics.catalog import LARGEST_RECORD_BYTES
from easyremote.topics.connection import confluent_config
from easyremote.topics.known_brokers import KnownBrokers

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["STREAMS_PRODUCER", "AtLeastOnce", "Delivery", "Offsets", "Output", "produce"]

log = structlog.get_logger(__name__)

GIVE_UP_S = 30.0
_LOOK_S = 0.5
_FULL_QUEUE_WAIT_S = 0.01
_BY_KEY = -1
"""librdkafka's partition of a record that its key decides on."""
STREAMS_PRODUCER: dict[str, Any] = {  # Any: librdkafka's settings are strings, numbers and booleans
    "linger.ms": 5,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 256 * 1024,
    "message.max.bytes": LARGEST_RECORD_BYTES,
    "compression.type": "lz4",
}

Offsets = Mapping[tuple[str, int], int]
"""Next offset to read of topics' partitions."""


class Output(NamedTuple):
    """A record to be sent; full name of the topic, partition None: by the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: list[tuple[str, bytes]] | None = None


class Delivery(Protocol):
    """Makes outputs durable, and with them how far the work has come. Not for several threads at once."""

    commits_offsets: bool
    """Whether the group's offsets are committed with the rest; else that is left to who reads."""

    def commit(self, outputs: Sequence[Output], positions: Sequence[Output], offsets: Offsets, group: Any) -> None:
        """Send all of it; return when it is durable.

        Parameters
        ----------
        outputs : sequence of Output
            Results, and the state that has changed.
        positions : sequence of Output
            Where the work stands: never durable before the outputs are.
        offsets : mapping of (str, int) to int
            The same as the group's offsets.
        group : object
            What a `Tick` or a `Revoked` of the source brought.
        """
        ...

    def give_up(self) -> None:
        """Wait for no broker any more; callable from any thread."""
        ...

    def close(self) -> None:
        """Let the producer go; nothing is pending between two commits."""
        ...


class AtLeastOnce:
    """Sends outputs and state, then positions: what was sent before a crash between the two is sent again after it.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    """

    commits_offsets = False

    def __init__(self, settings: Settings) -> None:
        self._failed: list[KafkaError] = []
        self._ending = threading.Event()
        # In order, so that of a key's state the last is the last; and as long as it takes.
        self._config = (
            confluent_config(settings) | STREAMS_PRODUCER | {"enable.idempotence": True, "delivery.timeout.ms": 0}
        )
        self._begin()

    def commit(self, outputs: Sequence[Output], positions: Sequence[Output], offsets: Offsets, group: Any) -> None:
        """Send outputs, and when they are acknowledged the positions; a broker that is away is waited for.

        Raises
        ------
        BrokerUnavailable
            If the broker has refused something, or this was told to end before it had everything.
        """
        for records in (outputs, positions):
            while not self._send(records):
                log.warning("this client has forgotten every broker; another one sends all of it again")
                self._begin()

    def _begin(self) -> None:
        self._brokers = KnownBrokers()
        self._producer = Producer(self._config | self._brokers.client)

    def _send(self, records: Sequence[Output]) -> bool:
        self._failed.clear()
        for record in records:
            produce(self._producer, record, self._acknowledged)
        while left := self._producer.flush(_LOOK_S):
            if self._brokers.are_forgotten:
                return False
            if self._ending.is_set():
                raise BrokerUnavailable(f"{left} results are not acknowledged, and this worker ends")
        if self._failed:
            raise BrokerUnavailable(f"results could not be sent: {self._failed[0]}")
        return True

    def give_up(self) -> None:
        """Wait for no broker any more; callable from any thread."""
        self._ending.set()

    def close(self) -> None:
        """Let the producer go."""

    def _acknowledged(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error)


def produce(producer: Producer, output: Output, acknowledged: Any = None) -> None:  # Any: the stub has no name for it
    """Hand a record to a producer, waiting for room in its queue."""
    partition = _BY_KEY if output.partition is None else output.partition
    while True:
        try:
            if output.headers is None:  # by place, which is twice as fast as by name
                producer.produce(output.topic, output.value, output.key, partition, acknowledged)
            else:
                producer.produce(
                    output.topic,
                    output.value,
                    output.key,
                    partition,
                    acknowledged,
                    headers=output.headers,  # type: ignore[arg-type]  # the stub's list is invariant
                )
        except BufferError:
            producer.poll(_FULL_QUEUE_WAIT_S)
        else:
            return
