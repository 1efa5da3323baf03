"""What stands in a topic now, from its beginning: for a replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.topics.connection import END_IS_TOLD_SOON, confluent_config

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings

__all__ = ["read_history"]

_BATCH = 5_000
_WAIT_S = 0.1
_GIVE_UP_S = 30.0


def read_history(settings: Settings, topic: str, partition: int) -> Iterator[list[Message]]:
    """Yield the committed records of a partition, in batches, up to where it ends when this is asked.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    topic : str
        Full name.
    partition : int
        Its number.

    Raises
    ------
    TopicError
        If the topic cannot be read.
    BrokerUnavailable
        If no broker answers for 30 s.
    """
    consumer = Consumer(
        confluent_config(settings)
        | END_IS_TOLD_SOON
        | {
            "group.id": f"{settings.node_id}-history",  # asked for by the client, never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 5,
        }
    )
    heard = monotonic_s()
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        while True:
            messages = consumer.consume(_BATCH, _WAIT_S)
            if messages:
                heard = monotonic_s()
            elif monotonic_s() - heard > _GIVE_UP_S:
                raise BrokerUnavailable(f"{topic} cannot be read: no Kafka answers for {_GIVE_UP_S:g} s")
            good, ended = _sorted_out(topic, messages)
            if good:
                yield good
            if ended:
                return
    finally:
        consumer.close()


def _sorted_out(topic: str, messages: list[Message]) -> tuple[list[Message], bool]:
    good, ended = [], False
    for message in messages:
        error = message.error()
        if error is None:
            good.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes begin so
            ended = True
        elif error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicError(f"{topic} cannot be read: {error}")
    return good, ended
