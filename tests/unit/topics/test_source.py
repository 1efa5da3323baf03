"""What a source that did not run for a while does with what it wakes up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from easyremote.settings import Settings
from easyremote.topics.doneset import Place
from easyremote.topics.events import Batch, Revoked, SourceEvent
from easyremote.topics.outages import OUTAGES
from easyremote.topics.profiles import CALLS
from easyremote.topics.source import BatchSource
from scripted import TOPIC, Record, ScriptedConsumer, Step, comes, fails, given, lost, wakes


class Receiver:
    """Notes where each batch that it is given begins and ends, and how often the group had been asked before each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, standing: Callable[[], dict[int, Place]] | None) -> None:
        self.got: list[int] = []
        self.ends: list[int] = []
        self.lengths: list[int] = []
        self.asked_before: list[int] = []
        self.client = ScriptedConsumer()
        self.client.replace(monkeypatch)
        self._source: BatchSource[Any] = BatchSource(
            Settings(kafka="none:1"), TOPIC, "nodes", CALLS, self._decode, self._take, standing=standing
        )

    def _decode(self, _partition: int, messages: Sequence[Any]) -> None:
        self.lengths.append(len(messages))

    def _take(self, event: SourceEvent[None]) -> None:
        if isinstance(event, Batch):
            self.got.append(event.first_offset)
            self.ends.append(event.next_offset)
            self.asked_before.append(len(self.client.asked))
            self._source.finished()
        elif isinstance(event, Revoked):
            event.done.set()

    def waits_while(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[ScriptedConsumer], None]) -> None:
        """Have no room for the next batch, until something has happened."""
        monkeypatch.setattr(self._source, "_has_slot", lambda _patience_s: False)
        monkeypatch.setattr(self._source, "_wait_for_slot", lambda: meanwhile(self.client))

    def after(self, *steps: Step) -> list[int]:
        self.client.play(self._source, [given, *steps])
        return self.got


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """One that answers for what it is given, and has been given nothing."""
    return Receiver(monkeypatch, dict)


def test_who_has_read_nothing_and_was_given_up_begins_nothing_of_what_it_wakes_up_to(receiver: Receiver) -> None:
    assert receiver.after(wakes(Record(7), is_member=False), lost) == []
    assert receiver.client.asked == [{0: Place(7)}]


def test_who_has_read_nothing_and_is_still_a_member_begins_it_after_it_has_asked(receiver: Receiver) -> None:
    assert receiver.after(wakes(Record(7), is_member=True), comes(Record(8))) == [7, 8]
    assert (receiver.client.asked, receiver.asked_before) == ([{0: Place(7)}], [1, 1])


def test_what_comes_after_the_broker_was_away_is_begun_when_the_group_has_been_asked(receiver: Receiver) -> None:
    def comes_when_the_broker_is_back(client: ScriptedConsumer) -> Record:
        OUTAGES.away("nobody:1", "of a test", "it was away")
        client.is_member = False
        return Record(7)

    assert receiver.after(comes_when_the_broker_is_back, lost) == []
    assert receiver.client.asked == [{0: Place(7)}]


def test_who_wakes_up_to_nothing_asks_with_what_comes_first(receiver: Receiver) -> None:
    assert receiver.after(wakes(None, is_member=False), comes(Record(7)), lost) == []
    assert receiver.client.asked == [{0: Place(7)}]


def test_records_of_a_new_assignment_are_kept_and_those_of_the_one_before_are_not(receiver: Receiver) -> None:
    def given_anew_with_a_record(client: ScriptedConsumer) -> Record:
        lost(client)
        given(client)
        client.is_member = False  # the group cannot be asked just now
        return Record(9)

    def comes_when_it_can(client: ScriptedConsumer) -> Record:
        client.is_member = True
        return Record(10)

    assert receiver.after(wakes(Record(7), is_member=False), given_anew_with_a_record, comes_when_it_can) == [9]
    assert receiver.ends == [11]
    assert receiver.client.asked == [{0: Place(7)}, {0: Place(9)}, {0: Place(9)}]


def test_what_came_of_a_partition_that_is_handed_over_and_comes_back_while_the_group_is_asked_counts_once(
    receiver: Receiver,
) -> None:
    def goes_and_comes_back(client: ScriptedConsumer) -> Record:
        client.tell("on_revoke")
        given(client)
        client.is_member = False  # the group cannot be asked just now
        return Record(7)

    def comes_when_it_can(client: ScriptedConsumer) -> Record:
        client.is_member = True
        return Record(8)

    assert receiver.after(wakes(Record(7), is_member=False), goes_and_comes_back, comes_when_it_can) == [7]
    assert receiver.lengths == [2]


def test_an_error_that_ends_the_source_is_not_waited_out(receiver: Receiver) -> None:
    assert receiver.after(wakes(None, is_member=True), fails, comes(Record(7))) == []
    assert receiver.client.asked == []


def test_where_the_receiver_stands_is_asked_with_and_not_what_has_just_come(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(monkeypatch, lambda: {0: Place(3, "done")})
    assert receiver.after(wakes(Record(7), is_member=True)) == [7]
    assert receiver.client.asked == [{0: Place(3, "done")}]


def test_what_a_receiver_without_an_account_works_on_is_not_committed_when_it_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = Receiver(monkeypatch, None)
    assert receiver.after(comes(Record(3)), wakes(Record(7), is_member=True)) == [3, 7]
    assert receiver.client.asked == []


def _gone_and_back(client: ScriptedConsumer) -> None:
    lost(client)
    given(client)


def test_what_was_read_of_a_partition_before_it_went_and_came_back_is_not_worked_on(receiver: Receiver) -> None:
    def comes_back_further_back(client: ScriptedConsumer) -> list[Record]:
        _gone_and_back(client)
        return [Record(3), Record(4)]

    receiver.client.fill = [comes_back_further_back]
    assert receiver.after(comes(Record(7))) == [3]
    assert receiver.ends == [5]


def test_a_batch_that_waits_while_its_partition_goes_and_comes_back_is_not_worked_on(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.waits_while(monkeypatch, _gone_and_back)
    assert receiver.after(comes(Record(7))) == []


def test_a_batch_that_waits_while_nothing_happens_is_worked_on(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.waits_while(monkeypatch, lambda _client: None)
    assert receiver.after(comes(Record(7))) == [7]


def test_who_waits_for_room_asks_whether_it_is_still_a_member_since_whoever_has_the_room_may_wait_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = Receiver(monkeypatch, lambda: {0: Place(7)})
    room: list[bool] = []

    def has_slot(patience_s: float) -> bool:
        receiver.client.now_s += patience_s
        room.append(receiver._source.tenure.is_sure())
        return room[-1]

    monkeypatch.setattr(receiver._source, "_has_slot", has_slot)
    assert receiver.after(comes(Record(7)), *[lambda _client: None] * 5) == [7]
    assert room == [False, False, True]
