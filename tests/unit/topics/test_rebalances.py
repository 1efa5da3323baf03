"""Assignments, freezes and jams by chance: what a holding has, it has whole, in order and once, and nothing stalls."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from easyremote.settings import Settings
from easyremote.topics import companion, progress, source
from easyremote.topics.companion import Companion
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch, Prepared, SourceEvent, Tick
from easyremote.topics.profiles import CALLS, STREAMS
from easyremote.topics.progress import Heard
from easyremote.topics.source import BatchSource
from easyremote.topics.tenure import Tenure
from rebalanced import Client, Cluster, TrueEnds, is_record

MAIN, OTHER = "orders", "payments"
PARTITIONS = 4
POLLS = 250
SEEDS = range(60)


class Member:
    """A source whose receiver checks what it is given; what it has committed is where whoever holds it next begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int, *, joins: bool) -> None:
        self.cluster = Cluster(seed, (MAIN, OTHER) if joins else (MAIN,), PARTITIONS)
        self._durable = dict.fromkeys(self.cluster.logs, 0)
        self._next: dict[tuple[str, int], int] = {}
        """What comes next of what is held."""
        self.got = 0
        self.heard: list[dict[tuple[str, int], Heard]] = []
        self.polls = POLLS
        self._jam = 0
        clients: list[Client] = []

        def make(_config: Any) -> Client:
            clients.append(Client(self.cluster))
            return clients[-1]

        def join(_config: Any) -> Client:
            clients.append(Client(self.cluster, self._happen))
            return clients[-1]

        monkeypatch.setattr(source, "Consumer", join)
        monkeypatch.setattr(companion, "Consumer", make)
        monkeypatch.setattr(source, "monotonic_s", self._clock)
        monkeypatch.setattr(source, "Tenure", lambda limit_s: Tenure(limit_s, self._clock))
        settings, beside = Settings(kafka="none:1"), None
        profile = replace(STREAMS, tick_s=0.1) if joins else CALLS
        if joins:
            beside = Companion(settings, "g", {OTHER: _decode}, profile)
        self.source: BatchSource[list[int]] = BatchSource(
            settings,
            MAIN,
            "g",
            profile,
            _decode,
            self._take,
            prepare=self._prepare,
            beside=beside,
            standing=None if joins else self._standing,
        )
        monkeypatch.setattr(self.source, "_has_slot", self._has_slot)
        if self.source._listening is not None:
            self.source._listening._ends = TrueEnds(self.cluster)  # type: ignore[assignment]
        self.clients = clients

    def _clock(self) -> float:
        return self.cluster.now_ms / 1000

    def _has_slot(self, _patience_s: float) -> bool:
        if not self._jam and not self.cluster.is_calm and self.cluster.chance.random() < 0.05:
            self._jam = self.cluster.chance.randrange(1, 20)
        self._jam = max(0, self._jam - 1)
        return not self._jam

    def _happen(self, client: Client) -> None:
        """Do what the group does, within a poll."""
        self.polls -= 1
        if self.polls < 0:
            self.cluster.is_calm = True
            if not client.assignment():
                self._give(client, list(range(PARTITIONS)))
        if self.polls < -POLLS:
            self.source._stopping.set()
        if self.cluster.is_calm:
            if not client.is_member:
                self._lose(client)
            return
        chance = self.cluster.chance
        if chance.random() < 0.03:
            self.cluster.passes(chance.choice([1_000, 3_200, 60_000]))  # the process is stopped
            client.is_member = chance.random() < 0.5
        if not client.is_member and chance.random() < 0.3:
            self._lose(client)
        elif client.is_member and chance.random() < 0.12:
            self._move(client)

    def _lose(self, client: Client) -> None:
        client.is_member = True
        held = [TopicPartition(MAIN, one.partition) for one in client.assignment()]
        if held:
            client.on["on_lost"](client, held)
        self._others_work()

    def _move(self, client: Client) -> None:
        held = {one.partition for one in client.assignment()}
        wanted = {number for number in range(PARTITIONS) if self.cluster.chance.random() < 0.5}
        if gone := held - wanted:
            client.on["on_revoke"](client, [TopicPartition(MAIN, number) for number in gone])
        self._others_work()
        if new := wanted - {one.partition for one in client.assignment()}:
            self._give(client, list(new))

    def _give(self, client: Client, partitions: list[int]) -> None:
        client.on["on_assign"](client, [TopicPartition(MAIN, number) for number in partitions])

    def _others_work(self) -> None:
        for place, log in self.cluster.logs.items():
            if place not in self._next:
                self._durable[place] = self.cluster.chance.randint(self._durable[place], log.end)

    def _prepare(self, partitions: tuple[int, ...], _stopping: threading.Event) -> Prepared:
        return Prepared({place: at for place, at in self._durable.items() if place[1] in partitions})

    def _standing(self) -> dict[int, Place]:
        return {number: Place(at) for (_, number), at in self._next.items()}

    def _take(self, event: SourceEvent[list[int]]) -> None:
        if isinstance(event, Assigned):
            for place in self._places(event.partitions):
                assert place not in self._next
                self._next[place] = self._durable[place]
        elif isinstance(event, Batch):
            self._batch(event)
            self.source.finished()
        elif isinstance(event, Tick):
            self._tick(event)
            self.source.finished()
        else:
            for place in self._places(event.partitions):
                at = self._next.pop(place)
                if not event.lost:
                    self._durable[place] = at
            event.done.set()

    def _places(self, partitions: tuple[int, ...]) -> list[tuple[str, int]]:
        return [place for place in self.cluster.logs if place[1] in partitions]

    def _batch(self, batch: Batch[list[int]]) -> None:
        place = (batch.topic, batch.partition)
        assert place in self._next, "a batch of what is not held"
        expected = [offset for offset in range(self._next[place], batch.next_offset) if is_record(offset)]
        assert batch.content == expected, f"{place} at {self._next[place]}"
        self._next[place] = batch.next_offset
        self.got += len(expected)

    def _tick(self, tick: Tick) -> None:
        self.heard.append(dict(tick.heard))
        for place, heard in tick.heard.items():
            end = self.cluster.logs[place].end_at(heard.until_ms)
            unread = [offset for offset in range(self._next[place], end) if is_record(offset)]
            assert not unread, f"{place} counts as read to its end"
        self._durable |= self._next

    def run(self) -> None:
        self.source._run()
        for place, at in self._next.items():
            unread = [offset for offset in range(at, self.cluster.logs[place].end) if is_record(offset)]
            assert not unread, f"{place} does not move"
        assert self._next
        assert self.got


def _decode(_partition: int, messages: Any) -> list[int]:
    return [message.offset() for message in messages]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("joins", [True, False], ids=["streams", "calls"])
def test_whatever_happens_each_holding_has_every_record_once_and_in_order_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, seed: int, *, joins: bool
) -> None:
    Member(monkeypatch, seed, joins=joins).run()


def _stalled(monkeypatch: pytest.MonkeyPatch, topic: str) -> tuple[Member, list[dict[str, Any]]]:
    """Have a partition of a member stall from its assignment on, with records in it; return what is logged, too."""
    member = Member(monkeypatch, 1, joins=True)
    for log in member.cluster.logs.values():
        log.written_ms += [member.cluster.now_ms] * 20
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(source.log, "error", lambda _event, **values: told.append(values))
    monkeypatch.setattr(source, "_COMMIT_S", 1e9)
    member.polls, member.cluster.is_calm = 0, True
    beside, first = member.clients
    give, is_first = member._give, [True]

    def give_and_stall(client: Client, partitions: list[int]) -> None:
        give(client, partitions)
        if is_first:
            is_first.clear()
            (first if topic == MAIN else beside).stall(topic, 2)

    monkeypatch.setattr(member, "_give", give_and_stall)
    monkeypatch.setattr(sys.modules[__name__], "POLLS", 3_000)
    return member, told


@pytest.mark.parametrize("topic", [MAIN, OTHER])
def test_a_partition_that_has_records_and_does_not_move_is_reported_and_its_client_replaced(
    monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    member, told = _stalled(monkeypatch, topic)
    member.run()
    assert told == [{"topic": topic, "partition": 2, "position": 0, "end": 20}]
    beside, first, *others = member.clients
    assert [client.closed for client in (first, beside)] == [topic == MAIN, topic == OTHER]
    assert len(others) == 1


def test_what_does_not_move_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    member, told = _stalled(monkeypatch, MAIN)
    monkeypatch.setattr(progress, "_STALLED_S", 1e9)
    with pytest.raises(AssertionError, match="does not move"):
        member.run()
    assert told == []
    assert {heard.get((MAIN, 2)) for heard in member.heard} == {Heard(0, 0)}
    assert member.heard[-1][MAIN, 1].until_ms > member.cluster.now_ms - 1_500
    assert member.heard[-1][OTHER, 2].until_ms > member.cluster.now_ms - 1_500
