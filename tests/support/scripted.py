"""A member of a group without a group: what becomes of it at each poll is written down before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from easyremote.errors import TopicError
from easyremote.topics import source
from easyremote.topics.doneset import Place
from easyremote.topics.tenure import Tenure

TOPIC = "calls"


class Record:
    """Stands for the message of a call, or of an error."""

    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self._offset = offset
        self._error = error

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return 0

    def error(self) -> KafkaError | None:
        return self._error


Step = Callable[["ScriptedConsumer"], Record | None]


class ScriptedConsumer:
    """Stands for the client of a source: each poll takes one step, and after the last one the source is told to stop.

    Parameters
    ----------
    committed : dict
        What the group has committed.
    """

    def __init__(self, committed: dict[int, Place] | None = None) -> None:
        self.asked: list[dict[int, Place]] = []
        """The commits that were waited for."""
        self.fill: list[Callable[[ScriptedConsumer], list[Record]]] = []
        """What comes after the first record of a batch, and becomes of the member meanwhile; unset: nothing."""
        self.is_member = True
        self.now_s = 0.0
        self._committed = committed or {}
        self._on: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self._steps: list[Step] = []
        self._after: Callable[[], None] = lambda: None

    def replace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of the client, and of the clock, of the sources that are made from now on."""
        monkeypatch.setattr(source, "Consumer", lambda _config: self)
        monkeypatch.setattr(source, "Tenure", lambda limit_s: Tenure(limit_s, lambda: self.now_s))

    def play(self, member: source.BatchSource[Any], steps: Iterable[Step]) -> None:
        """Run the source's thread on this one, to the end of the steps."""
        self._steps, self._after = list(steps), member._stopping.set
        with suppress(TopicError):  # another client would begin again
            member._run()

    def subscribe(self, _topics: list[str], **on: Callable[[Any, list[TopicPartition]], None]) -> None:
        self._on = on

    def poll(self, _timeout_s: float) -> Record | None:
        if not self._steps:
            self._after()
            return None
        return self._steps.pop(0)(self)

    def tell(self, what: str) -> None:
        """Call the source back, as a poll does."""
        self._on[what](self, [TopicPartition(TOPIC, 0)])

    def consume(self, _count: int, _timeout_s: float) -> list[Record]:
        return self.fill.pop(0)(self) if self.fill else []

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        places = [(one.partition, self._committed.get(one.partition, Place(-1001))) for one in asked]
        return [TopicPartition(TOPIC, number, place.offset, place.metadata) for number, place in places]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        if not asynchronous:
            self.asked.append({one.partition: Place(one.offset, one.metadata or "") for one in offsets})
            if not self.is_member:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
        return offsets

    def consumer_group_metadata(self) -> None: ...

    def incremental_assign(self, _given: list[TopicPartition]) -> None: ...

    def incremental_unassign(self, _taken: list[TopicPartition]) -> None: ...

    def assignment(self) -> list[TopicPartition]:
        return []

    def pause(self, _held: list[TopicPartition]) -> None: ...

    def resume(self, _held: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...


def given(member: ScriptedConsumer) -> None:
    """Give the partition to the member."""
    member.is_member = True
    member.tell("on_assign")


def wakes(record: Record | None = None, *, is_member: bool) -> Step:
    """Let the process be stopped for a minute, and wake up to a record; say whether the group still has it."""

    def step(member: ScriptedConsumer) -> Record | None:
        member.now_s += 60.0
        member.is_member = is_member
        return record

    return step


def lost(member: ScriptedConsumer) -> None:
    """Tell the member that the group went on without it."""
    member.tell("on_lost")


def comes(record: Record) -> Step:
    """Let a record come."""
    return lambda _member: record


def fails(_member: ScriptedConsumer) -> Record:
    """Let the topic be there no more."""
    return Record(0, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
