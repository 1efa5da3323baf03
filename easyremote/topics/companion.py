"""Further topics that are read beside a source's own: of each the same partitions that the group gives this member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from easyremote.errors import TopicError
from easyremote.topics.connection import confluent_config
from easyremote.topics.events import Batch
from easyremote.topics.known_brokers import KnownBrokers, hand_over

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings
    from easyremote.topics.profiles import Profile
    from easyremote.topics.progress import Progress

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
        self._starts: dict[tuple[str, int], int] = {}
        self._config = (
            confluent_config(settings)
            | {"group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False}
            | profile.client
        )
        self._brokers = KnownBrokers()
        self._consumer = Consumer(self._config | self._brokers.client)

    @property
    def topics(self) -> list[str]:
        """What is read."""
        return list(self._decode)

    def give(self, partitions: Sequence[int], starts: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Read partitions from here on; return where each begins: at its beginning where no start is told."""
        places = [(topic, number) for topic in self._decode for number in partitions]
        given = {place: starts.get(place, OFFSET_BEGINNING) for place in places}
        self._starts |= given
        self._consumer.incremental_assign([TopicPartition(*place, start) for place, start in given.items()])
        return given

    def take(self, partitions: Sequence[int]) -> None:
        """Read partitions no more."""
        held = [place for place in self._starts if place[1] in partitions]
        for place in held:
            del self._starts[place]
        if held:
            self._consumer.incremental_unassign([TopicPartition(*place) for place in held])

    def read(self, progress: Progress | None = None) -> Iterator[Batch[T]]:
        """Return what there is, without waiting; note in `progress`, if given, which ends were reached.

        Raises
        ------
        TopicError
            If a topic cannot be read.
        """
        if not self._starts:
            return
        if self._brokers.are_forgotten:
            self.begin_anew("this client has forgotten every broker; another one reads on")
        groups: dict[tuple[str, int], list[Message]] = {}
        messages = self._consumer.consume(self._profile.max_records, 0)
        if progress is not None and len(messages) < self._profile.max_records:
            progress.drained(self._decode)
        for message in messages:
            error, place = message.error(), (message.topic() or "", message.partition() or 0)
            if error is not None:
                if self._is_end(error) and progress is not None:
                    # Before what stands before it: who is told of the end is told after that.
                    progress.read(*place, message.offset() or 0)
            elif place in self._starts:
                groups.setdefault(place, []).append(message)
        for (topic, number), records in groups.items():
            first, last = records[0].offset() or 0, records[-1].offset() or 0
            yield Batch(topic, number, first, last + 1, self._decode[topic](number, records))

    def close(self) -> None:
        """Let the client go."""
        self._consumer.close()

    def begin_anew(self, why: str) -> None:
        """Let another client read on in this one's place."""
        log.warning(why, topics=list(self._decode))
        former, self._brokers = self._consumer, KnownBrokers()
        self._consumer = Consumer(self._config | self._brokers.client)
        hand_over(former, self._consumer, [TopicPartition(*place, start) for place, start in self._starts.items()])

    def _is_end(self, error: KafkaError) -> bool:
        """Deal with what is no record; say whether it is the end of its partition."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes begin so
            return True
        if error.fatal():
            raise KafkaException(error)
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise TopicError(f"a topic of {', '.join(self._decode)} cannot be read: {error}")
        log.warning("the broker cannot be read just now; trying on", topics=list(self._decode), error=str(error))
        return False
