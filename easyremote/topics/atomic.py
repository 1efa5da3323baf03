"""Records that come all or none, without offsets of a group: what an operator's command changes."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.topics.catalog import LARGEST_RECORD_BYTES
from easyremote.topics.connection import confluent_config
from easyremote.topics.deliveries import Output

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["AtomicWriter"]

_CALL_S = 10.0
_GIVE_UP_S = 30.0


class AtomicWriter:
    """Writes groups of records, each in one transaction; used as `with AtomicWriter(...) as writer`.

    Of all writers of one name only the newest can write: when it has begun, what an older one had not committed never
    will be, and what it had can be read. So who reads after the beginning decides on what still holds at the end.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    name : str
        Full name (`transactional.id`).

    Raises
    ------
    BrokerUnavailable
        If no broker answers within 30 s.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._name = name
        self._producer = Producer(
            confluent_config(settings)
            | {
                "transactional.id": name,
                # A transaction that is left open stalls every reader of what is committed.
                "transaction.timeout.ms": int(_CALL_S * 1000),
                "message.max.bytes": LARGEST_RECORD_BYTES,
            }
        )

    def __enter__(self) -> Self:
        try:
            self._producer.init_transactions(_GIVE_UP_S)
        except KafkaException as error:
            raise BrokerUnavailable(f"transactions cannot begin: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def write(self, outputs: Iterable[Output]) -> None:
        """Write records; return when all of them are committed.

        Raises
        ------
        TopicError
            If none of them is: one is refused, or another writer of this name has begun.
        BrokerUnavailable
            If the broker did not say in time what became of them.
        """
        try:
            self._producer.begin_transaction()
            for output in outputs:
                self._produce(output)
            self._commit(monotonic_s() + _GIVE_UP_S)
        except KafkaException as error:
            raise self._explain(error) from error

    def _produce(self, output: Output) -> None:
        arguments = {} if output.partition is None else {"partition": output.partition}
        self._producer.produce(
            output.topic,
            output.value,
            key=output.key,
            headers=output.headers,  # type: ignore[arg-type]  # the stub's list is invariant
            **arguments,  # type: ignore[arg-type]
        )

    def _commit(self, deadline: float) -> None:
        while True:
            try:
                self._producer.commit_transaction(_CALL_S)
            except KafkaException as error:
                if not error.args[0].retriable() or monotonic_s() > deadline:
                    raise
            else:
                return

    def _explain(self, error: KafkaException) -> TopicError:
        told = error.args[0]
        # Whoever calls after the fatal error is told `_FATAL`, and that one has no flag.
        if told.fatal() or told.code() == KafkaError._FATAL:  # noqa: SLF001  # librdkafka's own codes begin so
            return TopicError(f"nothing was written: another writer of {self._name} has begun meanwhile ({told})")
        if not told.txn_requires_abort():
            return BrokerUnavailable(f"whether the records were written is not known ({told}): look before repeating")
        try:
            self._producer.abort_transaction(_CALL_S)
        except KafkaException as second:
            # The broker ends it by itself after the transaction's timeout.
            return BrokerUnavailable(f"the records were not written ({told}), and their end is not told ({second})")
        return TopicError(f"nothing was written: {told}")
