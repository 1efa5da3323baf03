"""Exactly once: records, the state they came from and the offsets that they used up, in one Kafka transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.topics.connection import confluent_config
from easyremote.topics.deliveries import GIVE_UP_S, STREAMS_PRODUCER, Offsets, Output, produce

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["MembershipChanged", "Transactions", "committed_offsets"]

log = structlog.get_logger(__name__)

_CALL_S = 10.0
"""Most time of one call to the broker; the transaction itself is given up by the broker after as long."""
_RETRY_S = 0.1
_TOKEN_BYTES = 9


class MembershipChanged(TopicError):
    """The group's members or epochs have changed; nothing of the transaction has happened."""

    retriable = True


class Transactions:
    """Commits outputs and offsets together, and finds out what became of a commit whose answer was lost.

    Not for several threads at once.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    transactional_id : str
        Of this worker: a new one of the same id ends what the old one left open.
    group : str
        Full name of the group whose offsets are committed.
    """

    commits_offsets = True

    def __init__(self, settings: Settings, transactional_id: str, group: str) -> None:
        self._settings = settings
        self._id = transactional_id
        self._group = group
        self._producer: Producer | None = None

    def open(self) -> None:
        """Make the producer and end what another one of this id left open.

        Raises
        ------
        BrokerUnavailable
            If no broker answers.
        """
        producer = Producer(
            confluent_config(self._settings)
            | STREAMS_PRODUCER
            | {
                "transactional.id": self._id,
                # A transaction that is left open stalls every reader of what is committed.
                "transaction.timeout.ms": int(_CALL_S * 1000),
            }
        )
        try:
            producer.init_transactions(GIVE_UP_S)
        except KafkaException as error:
            raise BrokerUnavailable(f"transactions cannot begin: {error}") from error
        self._producer = producer

    def commit(self, outputs: Sequence[Output], positions: Sequence[Output], offsets: Offsets, group: Any) -> None:
        """Send and commit; return when all of it has happened, once.

        Parameters
        ----------
        outputs, positions : sequence of Output
            The records.
        offsets : mapping of (str, int) to int
            Next offset to read of each topic's partition that the records come from, also where it is the same as
            before: without one the broker asks no member of the group whether it still is one.
        group : object
            What a `Tick` or a `Revoked` of the source brought.

        Raises
        ------
        MembershipChanged
            If it did not happen because the group has changed: commit again with a newer `group`, unless the
            partitions are lost.
        BrokerUnavailable
            If no broker answers for 30 s.
        """
        deadline = monotonic_s() + GIVE_UP_S
        # Offsets alone do not tell: what silence leads to is committed with those that were committed before.
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        places = [TopicPartition(topic, number, offset, token) for (topic, number), offset in offsets.items()]
        is_tried = False
        while True:
            try:
                if self._producer is None:
                    self.open()
                    if is_tried and self._is_committed(places):
                        return
                is_tried = True
                self._try([*outputs, *positions], places, group)
            except KafkaException as error:
                self._recover(error.args[0], deadline)
            else:
                return

    def close(self) -> None:
        """Let the producer go; nothing is pending between two commits."""
        self._producer = None

    def _try(self, outputs: Sequence[Output], places: list[TopicPartition], group: Any) -> None:
        producer = self._producer
        assert producer is not None
        producer.begin_transaction()
        for output in outputs:
            produce(producer, output)
        producer.send_offsets_to_transaction(places, group, _CALL_S)
        producer.commit_transaction(_CALL_S)

    def _recover(self, error: KafkaError, deadline: float) -> None:
        gone = error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError.ILLEGAL_GENERATION,
                                KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH)  # fmt: skip
        if error.txn_requires_abort():
            try:
                assert self._producer is not None
                self._producer.abort_transaction(_CALL_S)
            except KafkaException as second:
                log.warning("a transaction could not be taken back; its producer is given up", error=str(second))
                self._producer = None
        else:
            # Whether it was committed is not known: a new producer of the same id ends it, and the offsets tell.
            self._producer = None
        if gone:
            raise MembershipChanged(f"group {self._group} has changed since this transaction began: {error}")
        if monotonic_s() > deadline:
            raise BrokerUnavailable(f"a transaction could not be committed within {GIVE_UP_S:g} s: {error}")
        log.warning("a transaction failed; trying again", error=str(error))
        time.sleep(_RETRY_S)

    def _is_committed(self, places: Sequence[TopicPartition]) -> bool:
        if not places:
            return False
        stand = _committed(self._settings, self._group, [(place.topic, place.partition) for place in places])
        told = {(one.topic, one.partition): (one.offset, one.metadata) for one in stand}
        return all(told.get((one.topic, one.partition)) == (one.offset, one.metadata) for one in places)


def committed_offsets(settings: Settings, group: str, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return where a group stands in topics' partitions, once no transaction is open on it.

    Raises
    ------
    BrokerUnavailable
        If no broker answers, or a transaction stays open, for 30 s.
    """
    if not places:
        return {}
    return {(one.topic, one.partition): one.offset for one in _committed(settings, group, places)}


def _committed(settings: Settings, group: str, places: Sequence[tuple[str, int]]) -> list[TopicPartition]:
    client = AdminClient(confluent_config(settings))
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in places])
    deadline = monotonic_s() + GIVE_UP_S
    while True:
        found: list[TopicPartition] = []
        try:
            future = client.list_consumer_group_offsets([wanted], require_stable=True, request_timeout=_CALL_S)[group]
            found = future.result().topic_partitions
            # The answer as a whole is good also where a partition's is that a transaction is open on it.
            error = next((one.error for one in found if one.error is not None), None)
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() == KafkaError.GROUP_ID_NOT_FOUND:
                return []
        if error is None:
            return [one for one in found if one.offset >= 0]
        if monotonic_s() > deadline:
            raise BrokerUnavailable(f"where group {group} stands cannot be read: {error}")
        log.info("waiting to know where the group stands", group=group, error=str(error))
        time.sleep(_RETRY_S)
