"""What a transaction's producer does when the broker's answer is lost, or another worker has the name by now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from easyremote.errors import BrokerUnavailable
from easyremote.settings import Settings
from easyremote.topics import transactions
from easyremote.topics.deliveries import Output
from easyremote.topics.retry import Backoff
from easyremote.topics.transactions import Transactions, committed_offsets

RECORDS = [Output("sums", b"a", b"1")]


class _Broker:
    """Stands for the broker's side of a transaction: what it has taken, and which answers of it are lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.committed: list[list[bytes | None]] = []
        self.group: dict[tuple[str, int], TopicPartition] = {}
        self.asked: list[list[tuple[str, int]]] = []
        self.after: dict[tuple[str, int], TopicPartition] = {}
        """What others have committed before this one asks."""
        self.answers: list[Callable[[], tuple[bool, bool]]] = []
        """Of each commit: whether it happens, and whether that is told."""
        monkeypatch.setattr(transactions, "Producer", lambda _config: _Client(self))
        monkeypatch.setattr(transactions, "_committed", self._stand)
        monkeypatch.setattr(transactions, "_BACKOFF", Backoff(0.0, 0.0))

    def _stand(self, _settings: Settings, _group: str, places: Sequence[tuple[str, int]]) -> list[TopicPartition]:
        self.asked.append(list(places))
        self.group |= self.after
        return [self.group[place] for place in places if place in self.group]

    def commit(self, records: list[bytes | None], places: list[TopicPartition]) -> None:
        happens, is_told = self.answers.pop(0)() if self.answers else (True, True)
        if happens:
            self.committed.append(records)
            self.group |= {(one.topic, one.partition): one for one in places}
        if not is_told:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # librdkafka's own codes begin so


class _Client:
    def __init__(self, broker: _Broker) -> None:
        self._broker = broker
        self._records: list[bytes | None] = []
        self._places: list[TopicPartition] = []

    def init_transactions(self, _timeout_s: float) -> None: ...

    def begin_transaction(self) -> None:
        self._records, self._places = [], []

    def produce(self, _topic: str, value: bytes | None, *_more: Any) -> None:
        self._records.append(value)

    def send_offsets_to_transaction(self, places: list[TopicPartition], _group: Any, _timeout_s: float) -> None:
        self._places = places

    def commit_transaction(self, _timeout_s: float) -> None:
        self._broker.commit(self._records, self._places)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> _Broker:
    return _Broker(monkeypatch)


@pytest.fixture
def delivery() -> Transactions:
    return Transactions(Settings(kafka="none:1"), "streams", "group")


def test_the_first_commit_of_a_worker_may_be_of_what_silence_has_closed(
    broker: _Broker, delivery: Transactions
) -> None:
    delivery.commit(RECORDS, [], {}, None)
    assert broker.committed == [[b"1"]]
    assert broker.asked == []


def test_what_silence_has_closed_is_not_told_again_when_the_answer_was_lost(
    broker: _Broker, delivery: Transactions
) -> None:
    stands = {("readings", 0): 7}
    delivery.commit([Output("sums", b"a", b"0")], [], stands, None)
    broker.answers = [lambda: (True, False)]
    delivery.commit(RECORDS, [], stands, None)  # with the offset that was committed before
    assert broker.committed == [[b"0"], [b"1"]]
    broker.answers = [lambda: (False, False)]
    delivery.commit([Output("sums", b"a", b"2")], [], stands, None)
    assert broker.committed == [[b"0"], [b"1"], [b"2"]]
    assert broker.asked == [[("readings", 0)], [("readings", 0)]]


def test_a_commit_is_known_by_the_places_that_no_other_worker_has_committed_since(
    broker: _Broker, delivery: Transactions
) -> None:
    def another_one_takes_over() -> tuple[bool, bool]:
        broker.after = {("readings", 3): TopicPartition("readings", 3, 9, "of another worker")}
        return True, False

    broker.answers = [another_one_takes_over]
    delivery.commit(RECORDS, [], {("readings", 0): 7, ("readings", 3): 5}, None)
    assert broker.committed == [[b"1"]]


def test_a_commit_of_which_nothing_is_known_is_asked_about_until_it_is(
    broker: _Broker, delivery: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = transactions._committed

    def nobody_answers(*_: Any) -> list[TopicPartition]:
        monkeypatch.setattr(transactions, "_committed", told)
        raise BrokerUnavailable("no Kafka answers")

    monkeypatch.setattr(transactions, "_committed", nobody_answers)
    broker.answers = [lambda: (True, False)]
    delivery.commit(RECORDS, [], {("readings", 0): 7}, None)
    assert broker.committed == [[b"1"]]


def test_nothing_follows_a_commit_of_which_nothing_is_known(broker: _Broker, delivery: Transactions) -> None:
    def ends() -> tuple[bool, bool]:
        delivery.give_up()
        return True, False

    broker.answers = [ends]
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="committed"):
            delivery.commit(RECORDS, [], {("readings", 0): 7}, None)
    assert broker.committed == [[b"1"]]


def test_nobody_is_asked_where_a_group_stands_in_nothing() -> None:
    assert committed_offsets(Settings(kafka="none:1"), "group", []) == {}
