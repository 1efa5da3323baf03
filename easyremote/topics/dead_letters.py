"""What stands in a topic of dead letters and nobody has dealt with yet; sending it back, dropping it.

A letter is never changed or removed: that it is dealt with stands in a topic beside it, by its place. The record that
goes back and this mark are one transaction, so neither comes without the other, and not twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from easyremote.clock import monotonic_s, now_ms
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.tally import tally
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.atomic import AtomicWriter
from easyremote.topics.catalog import DEAD_LETTERS, dead_letters_known, handled, handled_topic, record_topic_of
from easyremote.topics.changelog import read_latest
from easyremote.topics.connection import END_IS_TOLD_SOON, confluent_config
from easyremote.topics.deliveries import Output
from easyremote.topics.letters import DeadLetter, letter_of, redriven_headers
from easyremote.topics.limits import Unreadable, attempt, shortened
from easyremote.topics.records import encode
from easyremote.topics.retry import JUST_MADE, ask

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["DeadLetters", "Handled", "Wanted", "topics_of_dead_letters"]

Answer = TypeVar("Answer")

_GIVE_UP_S = 30.0
_GROUP_LETTERS = 200
_GROUP_BYTES = 8 * 1024 * 1024
"""Of one transaction: while it is open, what is read behind it has to wait."""


class Handled(Struct, frozen=True):
    """What was done with a letter, last: value of a record beside the dead letters, keyed by the letter's id."""

    action: Literal["redriven", "dropped"]
    at_ms: int
    by: str
    times: int
    """How often it was redriven."""


class Wanted(Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is unset does not matter.

    Parameters
    ----------
    function, error : str
        Named by the call; class of the error.
    before_ms, after_ms : int
        Given up before, or at or after, ms since the epoch.
    """

    function: str | None = None
    error: str | None = None
    before_ms: int | None = None
    after_ms: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Say whether a letter is one of them."""
        return (
            (self.function is None or letter.function == self.function)
            and (self.error is None or letter.error == self.error)
            and (self.before_ms is None or letter.failed_ms < self.before_ms)
            and (self.after_ms is None or letter.failed_ms >= self.after_ms)
        )


_decode_handled = msgspec.json.Decoder(Handled).decode


def topics_of_dead_letters(settings: Settings) -> list[str]:
    """Return all topics of dead letters, without the namespace; calls' first.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    """
    return dead_letters_known(TopicAdmin(settings).partitions(), settings.namespace)


class DeadLetters:
    """The dead letters of one topic.

    Parameters
    ----------
    settings : Settings
        Broker and namespace.
    topic : str
        `requests.dlq`, `readings.dlq`, or that of a topic that a user's pipelines read.

    Raises
    ------
    TopicError
        If it is another one, or does not exist.
    BrokerUnavailable
        If no broker answers.
    """

    def __init__(self, settings: Settings, topic: str = DEAD_LETTERS) -> None:
        # Where letters go back to is said by their topic's name. Calls go to the router, which knows the nodes that
        # live now. A letter's own headers do not say it: anyone could write them.
        back_to = record_topic_of(topic)
        if back_to is None:
            raise TopicError(
                f"{topic} is no topic of dead letters: those are named as requests.dlq and readings.dlq are"
            )
        self._settings = settings
        self._topic = settings.namespace + topic
        self._back_to = settings.namespace + back_to
        self._handled = settings.namespace + handled_topic(topic)
        admin = TopicAdmin(settings)
        there = admin.partitions()
        if self._topic not in there:
            known = ", ".join(dead_letters_known(there, settings.namespace))
            raise TopicError(
                f"topic {self._topic} does not exist: "
                + (f"there are {known}" if known else "start a worker, which creates the topics ('easyremote up')")
            )
        admin.ensure([handled(topic)])

    def handled(self) -> dict[str, Handled]:
        """Return what was done with which letter, by its id."""
        latest = read_latest(self._settings, self._handled, [0])[0]
        tally.read(self._handled, len(latest))
        known: dict[str, Handled] = {}
        for key, value in latest.items():
            name, one = key.decode(errors="replace"), attempt(_decode_handled, value)
            if isinstance(one, Unreadable):
                tally.pass_over(self._handled, 0, None, f"{shortened(name, 100)!r}: {one.error}")
            else:
                known[name] = one
        return known

    def matching(self, wanted: Wanted) -> Iterator[DeadLetter]:
        """Yield the letters that are wanted, oldest first, whether they are dealt with or not."""
        return (letter for letter in map(letter_of, self._read()) if wanted.matches(letter))

    def get(self, letter_id: str) -> DeadLetter:
        """Return one letter.

        Raises
        ------
        TopicError
            If there is none of this id.
        """
        partition, _, offset = letter_id.partition("/")
        if not (partition.isascii() and partition.isdecimal() and offset.isascii() and offset.isdecimal()):
            raise TopicError(f"{letter_id!r} names no dead letter: an id is PARTITION/OFFSET, as in 0/17")
        place = TopicPartition(self._topic, int(partition), int(offset))
        with _reader(self._settings) as consumer:
            try:
                low, high = consumer.get_watermark_offsets(place, timeout=_GIVE_UP_S) or (0, 0)
            except KafkaException as error:
                raise TopicError(f"{self._topic} has no dead letter {letter_id}: {error}") from error
            if low <= place.offset < high:
                consumer.assign([place])
                for message in _records(consumer, {place.partition: place.offset + 1}):
                    if message.offset() == place.offset:
                        return letter_of(message)
        raise TopicError(f"{self._topic} has no dead letter {letter_id}: its records are {low} to {high - 1}")

    def handle(
        self,
        action: Literal["redriven", "dropped"],
        wanted: Wanted,
        ids: Iterable[str] = (),
        *,
        again: bool = False,
    ) -> Iterator[int]:
        """Send letters back, or drop them; yield how many are done after each transaction.

        Parameters
        ----------
        action : {"redriven", "dropped"}
            What is done with them.
        wanted : Wanted
            Which open ones.
        ids : iterable of str
            These and no others; `wanted` is not asked then.
        again : bool
            Also what is dealt with already.

        Raises
        ------
        TopicError
            If there is no letter of an id, it is dealt with already, or is not whole and should go back: nothing is
            done then. Or if another
            one's command has begun meanwhile: what was yielded is done, and no more.
        """
        named = list(dict.fromkeys(ids))
        with AtomicWriter(self._settings, f"{self._settings.namespace}easyremote.{self._handled}") as writer:
            known = self.handled()
            if named:
                self._refuse_handled(named, known, again=again)
                letters: Iterable[DeadLetter] = [self._whole(self.get(one), action) for one in named]
            else:
                letters = (
                    one
                    for one in self.matching(wanted)
                    if (again or one.id not in known)
                    and not (action == "redriven" and (one.truncated or one.is_of_a_window))
                )
            done = 0
            for group in _groups(letters):
                writer.write(output for letter in group for output in self._outputs(action, letter, known))
                done += len(group)
                yield done

    @staticmethod
    def _whole(letter: DeadLetter, action: Literal["redriven", "dropped"]) -> DeadLetter:
        if action == "redriven" and letter.truncated:
            raise TopicError(
                f"nothing was done: {letter.id} is not the whole record ({letter.truncated}): send that again "
                "yourself, and drop this"
            )
        if action == "redriven" and letter.is_of_a_window:
            raise TopicError(
                f"nothing was done: {letter.id} is of a window and no record that came, so there is nothing to send "
                "back: drop it"
            )
        return letter

    def _refuse_handled(self, ids: list[str], known: dict[str, Handled], *, again: bool) -> None:
        told = [f"{one} was {known[one].action} by {known[one].by}" for one in ids if one in known]
        if told and not again:
            raise TopicError(f"nothing was done: {'; '.join(told)}; --again does it nevertheless")

    def _outputs(
        self, action: Literal["redriven", "dropped"], letter: DeadLetter, known: dict[str, Handled]
    ) -> Iterator[Output]:
        at_ms = now_ms()
        times = known[letter.id].times if letter.id in known else 0
        if action == "redriven":
            times += 1
            headers = redriven_headers(letter, times, at_ms)
            yield Output(self._back_to, letter.key, letter.value, headers=headers)
        mark = Handled(action, at_ms, self._settings.node_id, times)
        yield Output(self._handled, letter.id.encode(), encode(mark), partition=0)

    def _read(self) -> Iterator[Message]:
        with _reader(self._settings) as consumer:
            topics = self._ask(lambda: consumer.list_topics(self._topic, timeout=_GIVE_UP_S).topics)
            known = topics[self._topic].partitions
            places = [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in known]
            ends = {one.partition: self._end(consumer, one) for one in places}
            consumer.assign(places)
            yield from _records(consumer, ends)

    def _end(self, consumer: Consumer, place: TopicPartition) -> int:
        marks = self._ask(lambda: consumer.get_watermark_offsets(place, timeout=_GIVE_UP_S))
        if marks is None:
            raise BrokerUnavailable(f"{self._topic}[{place.partition}] does not answer within {_GIVE_UP_S:g} s")
        return marks[1]

    def _ask(self, request: Callable[[], Answer]) -> Answer:
        where = self._settings.bootstrap_servers()
        return ask(f"to read {self._topic}", request, where=where, within_s=_GIVE_UP_S, also=JUST_MADE)


def _reader(settings: Settings) -> closing[Consumer]:
    consumer = Consumer(
        confluent_config(settings)
        | END_IS_TOLD_SOON
        | {
            "group.id": f"{settings.node_id}-dead-letters",  # asked for by the client, never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
        }
    )
    return closing(consumer)


def _records(consumer: Consumer, ends: dict[int, int]) -> Iterator[Message]:
    """Yield what stands in the partitions before their ends: what comes meanwhile, as by a redrive, is not meant."""
    behind = {number for number, end in ends.items() if end}
    heard = monotonic_s()
    while behind:
        message = consumer.poll(0.05)
        if message is None:
            if monotonic_s() - heard > _GIVE_UP_S:
                raise BrokerUnavailable(f"the dead letters cannot be read: no Kafka answers for {_GIVE_UP_S:g} s")
            continue
        heard = monotonic_s()
        error, number, offset = message.error(), message.partition() or 0, message.offset() or 0
        if error is None:
            if offset < ends[number]:
                yield message
            if offset >= ends[number] - 1:
                behind.discard(number)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes begin so
            behind.discard(number)
        elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise TopicError(f"the dead letters cannot be read: {error}")


def _groups(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    group: list[DeadLetter] = []
    size = 0
    for letter in letters:
        group.append(letter)
        size += len(letter.value or b"")
        if len(group) >= _GROUP_LETTERS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
