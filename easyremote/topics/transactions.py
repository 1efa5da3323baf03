"""Exactly once: records, the state they came from and the offsets that they used up, in one Kafka transaction."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.threads import LongThread
from easyremote.topics.connection import COORDINATOR_LIMIT_S, confluent_config
from easyremote.topics.deliveries import GIVE_UP_S, STREAMS_PRODUCER, Offsets, Output, produce
from easyremote.topics.retry import Backoff, ask, passes

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["MembershipChanged", "Transactions", "committed_offsets"]

log = structlog.get_logger(__name__)

_CALL_S = 10.0
"""Most time of one call to the broker; the transaction itself is given up by the broker after as long."""
_TOKEN_BYTES = 9
_INIT_S = 15.0
"""Longer than the transaction of another one of this id takes to be ended."""
_LEEWAY_S = 2.0
_BACKOFF = Backoff()


@dataclass
class _Failing:
    """How often one commit has failed, and since when in a way that may not pass by itself."""

    attempt: int = 0
    since_s: float | None = None


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
        self._where = settings.bootstrap_servers()
        self._ending = threading.Event()
        self._producer: Producer | None = None
        self._unknown: Sequence[TopicPartition] = ()
        """Offsets of a commit of which it is not known whether it has happened."""

    def open(self) -> None:
        """Make the producer and end what another one of this id left open.

        A broker that is away is waited for.

        Raises
        ------
        BrokerUnavailable
            If this was told to end before one answered.
        """
        self._producer = ask("to begin transactions", self._begun, where=self._where, stopping=self._ending)

    def _begun(self) -> Producer:
        # After a time that is over only a new producer may begin anew.
        producer = Producer(
            confluent_config(self._settings)
            | STREAMS_PRODUCER
            | {
                "transactional.id": self._id,
                # A transaction that is left open stalls every reader of what is committed.
                "transaction.timeout.ms": int(_CALL_S * 1000),
            }
        )
        _bounded(lambda: producer.init_transactions(_INIT_S), _INIT_S + _LEEWAY_S)
        return producer

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
            If it fails for 30 s in another way than that no broker answers, which is waited for as long as it takes.
            Whether it has happened may then not be known: nothing more is committed, and whoever holds the partitions
            next goes on from what is.
        """
        if self._unknown:
            raise BrokerUnavailable("it is not known whether the last transaction was committed: nothing can follow it")
        # Offsets alone do not tell: what silence leads to is committed with those that were committed before.
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        places = [TopicPartition(topic, number, offset, token) for (topic, number), offset in offsets.items()]
        failing = _Failing()
        while True:
            try:
                if self._producer is None:
                    self.open()
                if self._unknown and self._is_committed(places):
                    break
                self._unknown = places
                self._try([*outputs, *positions], places, group)
            except KafkaException as error:
                self._recover(error.args[0])
                self._wait(error, failing)
            except BrokerUnavailable as error:
                self._wait(error, failing)
            else:
                break
        self._unknown = ()

    def give_up(self) -> None:
        """Wait for no broker any more; callable from any thread."""
        self._ending.set()

    def close(self) -> None:
        """Let the producer go; nothing is pending between two commits."""
        self._producer = None

    def _try(self, outputs: Sequence[Output], places: list[TopicPartition], group: Any) -> None:
        producer = self._producer
        assert producer is not None

        def commit() -> None:
            producer.begin_transaction()
            for output in outputs:
                produce(producer, output)
            producer.send_offsets_to_transaction(places, group, _CALL_S)
            producer.commit_transaction(_CALL_S)

        _bounded(commit, 2 * _CALL_S + _LEEWAY_S)

    def _recover(self, error: KafkaError) -> None:
        gone = error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError.ILLEGAL_GENERATION,
                                KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH)  # fmt: skip
        if error.txn_requires_abort():
            try:
                assert self._producer is not None
                self._producer.abort_transaction(_CALL_S)
            except KafkaException as second:
                log.warning("a transaction could not be taken back; its producer is given up", error=str(second))
                self._producer = None
            self._unknown = ()  # what must be taken back was not committed
        else:
            # Whether it was committed is not known: a new producer of the same id ends it, and the offsets tell.
            self._producer = None
        if gone:
            self._unknown = ()  # the group takes offsets before anything is committed, or refuses them
            raise MembershipChanged(f"group {self._group} has changed since this transaction began: {error}")

    def _wait(self, error: KafkaException | BrokerUnavailable, failing: _Failing) -> None:
        failing.attempt += 1
        if passes(error):
            failing.since_s = None
            if failing.attempt == 1:
                log.warning("a transaction is tried again until it is committed", group=self._group, error=str(error))
        else:
            log.warning("a transaction failed; trying again", error=str(error))
            failing.since_s = monotonic_s() if failing.since_s is None else failing.since_s
        is_over = failing.since_s is not None and monotonic_s() - failing.since_s > GIVE_UP_S
        if is_over or self._ending.wait(_BACKOFF.wait_s(failing.attempt)):
            raise BrokerUnavailable(f"a transaction could not be committed: {error}") from error

    def _is_committed(self, places: Sequence[TopicPartition]) -> bool:
        """Say whether the group knows the mark of a commit.

        One place is enough, for a transaction happens as a whole: of the others, which have gone to other workers
        meanwhile, the group may know these workers' later commits.
        """
        if not places:
            return False
        stand = _committed(self._settings, self._group, [(place.topic, place.partition) for place in places])
        return places[0].metadata in {one.metadata for one in stand}


def _bounded(work: Callable[[], None], timeout_s: float) -> None:
    """Do work with a producer on a thread that is left behind if it does not come back in time.

    librdkafka may never return from `send_offsets_to_transaction` when the group's coordinator goes away meanwhile,
    whatever time it was given (seen with 2.x, a broker killed and restarted).
    """
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised where this is waited for
            ended.set_exception(error)
        else:
            ended.set_result(None)

    LongThread(run, "transaction").start()
    try:
        ended.result(timeout_s)
    except TimeoutError as error:
        late = KafkaError(KafkaError._TIMED_OUT, f"the client itself has not come back for {timeout_s:g} s")  # noqa: SLF001
        raise KafkaException(late) from error


def committed_offsets(
    settings: Settings, group: str, places: Sequence[tuple[str, int]], stopping: threading.Event | None = None
) -> dict[tuple[str, int], int]:
    """Return where a group stands in topics' partitions, once no transaction is open on it.

    Raises
    ------
    BrokerUnavailable
        If no broker answers, or a transaction stays open, for 30 s, or `stopping` is set before that.
    """
    if not places:
        return {}
    return {(one.topic, one.partition): one.offset for one in _committed(settings, group, places, stopping)}


def _committed(
    settings: Settings, group: str, places: Sequence[tuple[str, int]], stopping: threading.Event | None = None
) -> list[TopicPartition]:
    client = AdminClient(confluent_config(settings))
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in places])

    def stand() -> list[TopicPartition]:
        asked = client.list_consumer_group_offsets([wanted], require_stable=True, request_timeout=COORDINATOR_LIMIT_S)
        try:
            # A limit that is over in the client while the coordinator is away ends the process (decision 20).
            found = asked[group].result(_CALL_S).topic_partitions
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            raise
        # The answer as a whole is good also where a partition's is that a transaction is open on it.
        failed = next((one.error for one in found if one.error is not None), None)
        if failed is not None:
            raise KafkaException(failed)
        return [one for one in found if one.offset >= 0]

    what, where = f"to know where group {group} stands", settings.bootstrap_servers()
    return ask(what, stand, where=where, within_s=GIVE_UP_S, stopping=stopping)
