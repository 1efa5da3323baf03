"""Further topics that are read beside a source's own: of each the same partitions that the group gives this member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from easyremote.errors import TopicError
from easyremote.topics.connection import confluent_config
from easyremote.topics.events import Batch

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings
    from easyremote.topics.profiles import Profile

__all__ = ["Companion"]

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Companion(Generic[T]):
    """Reads topics that have as many partitions as the source's own, for joins.

    The group shares out the partitions of one topic only. Whoever holds one of them reads the same partition of the
    others, so that nobody can hold one side of a join without the other, as could be while a group that shares out
    several topics moves them one by one.

    Not for several threads: the source's calls it.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    group : str
        Full name of the source's group: a client's setting, it is never joined.
    decode : mapping of str to callable
        Full names of the topics, and `(partition, messages) -> content` of each.
    profile : Profile
        How much is read at once.
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        decode: Mapping[str, Callable[[int, Sequence[Message]], T]],
        profile: Profile,
    ) -> None:
        self._decode = decode
        self._profile = profile
        self._held: set[int] = set()
        self._consumer = Consumer(
            confluent_config(settings)
            | {"group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False}
            | profile.client
        )

    def give(self, partitions: Sequence[int], starts: Mapping[tuple[str, int], int]) -> None:
        """Read partitions from here on; from their beginning where no start is told."""
        self._held |= set(partitions)
        self._consumer.incremental_assign(
            [
                TopicPartition(topic, number, starts.get((topic, number), OFFSET_BEGINNING))
                for topic in self._decode
                for number in partitions
            ]
        )

    def take(self, partitions: Sequence[int]) -> None:
        """Read partitions no more."""
        held = [number for number in partitions if number in self._held]
        self._held -= set(held)
        if held:
            self._consumer.incremental_unassign(
                [TopicPartition(topic, number) for topic in self._decode for number in held]
            )

    def read(self) -> Iterator[Batch[T]]:
        """Return what there is, without waiting.

        Raises
        ------
        TopicError
            If a topic cannot be read.
        """
        if not self._held:
            return
        groups: dict[tuple[str, int], list[Message]] = {}
        for message in self._consumer.consume(self._profile.max_records, 0):
            error = message.error()
            if error is not None:
                self._on_error(error)
            elif message.partition() in self._held:
                groups.setdefault((message.topic() or "", message.partition() or 0), []).append(message)
        for (topic, number), messages in groups.items():
            first, last = messages[0].offset() or 0, messages[-1].offset() or 0
            yield Batch(topic, number, first, last + 1, self._decode[topic](number, messages))

    def close(self) -> None:
        """Let the client go."""
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            raise KafkaException(error)
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise TopicError(f"a topic of {', '.join(self._decode)} cannot be read: {error}")
        log.warning("the broker cannot be read just now; trying on", topics=list(self._decode), error=str(error))
