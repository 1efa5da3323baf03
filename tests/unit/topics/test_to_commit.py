"""A commit that the broker did not take is made again: the newest place, and nothing of an assignment before."""

from __future__ import annotations

from confluent_kafka import KafkaError, TopicPartition
from easyremote.topics.doneset import Place
from easyremote.topics.to_commit import ToCommit

AWAY = KafkaError(KafkaError._TRANSPORT)  # librdkafka's own codes begin so
HELD = {0, 1}


class _Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _places(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("requests", number, 5) for number in numbers]


def test_what_the_broker_did_not_take_is_asked_for_again_after_a_while_though_nothing_more_comes() -> None:
    time = _Time()
    commits = ToCommit(time)
    commits.note({0: Place(5), 1: Place(7)})
    assert commits.take(HELD) == {0: Place(5), 1: Place(7)}
    commits.told(AWAY, _places(0, 1))
    assert commits.take(HELD) == {}
    time.now_s += 1
    assert commits.take(HELD) == {0: Place(5), 1: Place(7)}
    commits.told(None, _places(0, 1))
    time.now_s += 1
    assert commits.take(HELD) == {}


def test_a_commit_that_failed_is_made_again_with_the_newest_place() -> None:
    time = _Time()
    commits = ToCommit(time)
    for offset in (5, 6):
        commits.note({0: Place(offset)})
        commits.take(HELD)
    commits.told(AWAY, _places(0))  # the first of the two
    time.now_s += 1
    assert commits.take(HELD) == {0: Place(6)}
    commits.told(AWAY, _places(0))
    commits.note({0: Place(9)})
    time.now_s += 1
    assert commits.take(HELD) == {0: Place(9)}


def test_what_has_just_failed_is_asked_for_at_once_when_the_partition_is_handed_over() -> None:
    commits = ToCommit(_Time())
    commits.note({0: Place(5)})
    commits.take(HELD)
    commits.told(AWAY, _places(0))
    assert commits.take(HELD, at_last=True) == {0: Place(5)}


def test_nothing_of_an_assignment_before_is_committed() -> None:
    time = _Time()
    commits = ToCommit(time)
    commits.note({0: Place(5), 1: Place(7)})
    assert commits.take({0}) == {0: Place(5)}
    commits.told(AWAY, _places(0))
    commits.note({1: Place(8)})
    commits.forget([0, 1])
    commits.told(AWAY, _places(0, 1))
    time.now_s += 1
    assert commits.take(HELD) == {}
