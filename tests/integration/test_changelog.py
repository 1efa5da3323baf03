"""State in a compacted topic: read to its end, kept up to date by who stands by, told apart from another's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from easyremote.settings import Settings
from easyremote.topics import changelog
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import STREAMS_CHANGELOG, declarations
from easyremote.topics.changelog import Copy, Standby, catch_up, read_latest
from easyremote.topics.deliveries import Output
from easyremote.topics.transactions import Transactions, committed_offsets
from workers import producer_to

pytestmark = pytest.mark.broker


@pytest.fixture
def topic(settings: Settings) -> str:
    _make(settings)
    return settings.namespace + STREAMS_CHANGELOG


def _make(settings: Settings) -> None:
    TopicAdmin(settings).ensure(one for one in declarations() if one.name == STREAMS_CHANGELOG)


def _write(settings: Settings, topic: str, rows: Mapping[bytes, bytes | None], partition: int = 0) -> None:
    producer = producer_to(settings.bootstrap_servers())
    for key, value in rows.items():
        producer.produce(topic, value, key, partition)
    assert producer.flush(30) == 0


def _await(standby: Standby, partition: int, keys: set[bytes]) -> None:
    pause = threading.Event()
    for _ in range(200):
        if set(standby._copies[partition].latest) == keys:
            return
        pause.wait(0.05)
    pytest.fail(f"the copy has {set(standby._copies[partition].latest)}, awaited were {keys}")


def test_a_copy_is_read_on_from_where_it_stands_and_forgets_what_has_no_value(settings: Settings, topic: str) -> None:
    _write(settings, topic, {b"a": b"1", b"b": b"1"})
    copies = {0: Copy(), 1: Copy()}
    assert catch_up(settings, topic, copies) == 2
    _write(settings, topic, {b"a": None, b"b": b"2"})
    assert catch_up(settings, topic, copies) == 2
    assert (copies[0].latest, copies[1].latest) == ({b"b": b"2"}, {})
    assert catch_up(settings, topic, copies) == 0


def test_a_long_restore_says_how_far_it_is(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(changelog, "_TOLD_EACH_S", 0.0)
    monkeypatch.setattr(changelog, "_AT_ONCE", 10)
    told = []
    monkeypatch.setattr(changelog.log, "info", lambda event, **values: told.append((event, values)))
    _write(settings, topic, {b"%d" % number: b"1" for number in range(40)})
    read_latest(settings, topic, [0])
    assert {event for event, _ in told} == {"restoring state"}
    records, left = ([values[name] for _, values in told] for name in ("records", "left"))
    assert records == sorted(records)
    assert all(one + rest == 40 for one, rest in zip(records, left, strict=True) if one)


def test_who_stands_by_has_little_left_to_read(settings: Settings, topic: str) -> None:
    _write(settings, topic, {b"a": b"1", b"b": b"1"})
    standby = Standby(settings, topic)
    try:
        _await(standby, 0, {b"a", b"b"})
        _write(settings, topic, {b"a": None, b"c": b"1"})
        _await(standby, 0, {b"b", b"c"})
        taken = standby.take([0, 1])
        assert taken[0].latest == {b"b": b"1", b"c": b"1"}
        _write(settings, topic, {b"b": b"2"})
        assert catch_up(settings, topic, taken) == 1
        assert taken[0].latest[b"b"] == b"2"
        standby.follow([0])
        _await(standby, 0, {b"b", b"c"})
    finally:
        standby.close()


def test_an_open_transaction_is_waited_for_and_what_it_holds_is_read(settings: Settings, topic: str) -> None:
    # As when its offsets are decided and its records are not yet: state would be older than the group's offsets.
    _write(settings, topic, {b"position": b"1"})
    for decide, position in (("commit_transaction", b"2"), ("abort_transaction", b"2")):
        producer = Producer({"bootstrap.servers": settings.bootstrap_servers(), "transactional.id": topic})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, b"2" if decide == "commit_transaction" else b"3", b"position", 0)
        assert producer.flush(30) == 0
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_latest, settings, topic, [0])
            with pytest.raises(TimeoutError):
                reading.result(3.0)  # without, the reader says after one that it has come to the end
            getattr(producer, decide)(30)
            assert reading.result(30)[0] == {b"position": position}


def test_offsets_that_a_transaction_has_not_decided_on_are_waited_for(settings: Settings, topic: str) -> None:
    servers = {"bootstrap.servers": settings.bootstrap_servers()}
    group = settings.namespace + "group"
    producer = Producer(servers | {"transactional.id": topic})
    member = Consumer(servers | {"group.id": group})
    producer.init_transactions(30)
    try:
        for decide, offset in (("commit_transaction", 5), ("abort_transaction", 9)):
            producer.begin_transaction()
            place = TopicPartition(topic, 0, offset)
            producer.send_offsets_to_transaction([place], member.consumer_group_metadata(), 30)
            with ThreadPoolExecutor(1) as pool:
                asking = pool.submit(committed_offsets, settings, group, [(topic, 0), (topic, 1)])
                with pytest.raises(TimeoutError):
                    asking.result(2.0)
                getattr(producer, decide)(30)
                assert asking.result(30) == {(topic, 0): 5}
    finally:
        member.close()


def test_a_commit_whose_answer_was_lost_is_known_by_more_than_its_offsets(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What silence leads to is committed with the offsets that were committed before.
    group = settings.namespace + "group"
    member = Consumer({"bootstrap.servers": settings.bootstrap_servers(), "group.id": group})
    delivery = Transactions(settings, topic, group)
    attempts: list[bool] = []

    def lose_the_answer(*given: Any) -> None:
        Transactions._try(delivery, *given)
        attempts.append(True)
        if len(attempts) == 2:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # librdkafka's own codes begin so

    monkeypatch.setattr(delivery, "_try", lose_the_answer)
    try:
        for number in range(3):
            record = Output(topic, b"%d" % number, b"1", 0)
            delivery.commit([record], [], {(topic, 0): 5}, member.consumer_group_metadata())
    finally:
        member.close()
    assert len(attempts) == 3
    assert read_latest(settings, topic, [0])[0] == {b"0": b"1", b"1": b"1", b"2": b"1"}
    assert committed_offsets(settings, group, [(topic, 0)]) == {(topic, 0): 5}


def test_a_changelog_that_was_made_anew_is_not_taken_for_the_old_one(settings: Settings, topic: str) -> None:
    _write(settings, topic, {b"%d" % number: b"old" for number in range(5)})
    copies = {0: Copy()}
    catch_up(settings, topic, copies)
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers()})
    admin.delete_topics([topic])[topic].result(10)
    _make_anew(settings)
    _write(settings, topic, {b"x": b"new"})
    catch_up(settings, topic, copies)
    assert copies[0].latest == {b"x": b"new"}


def _make_anew(settings: Settings) -> None:
    pause = threading.Event()
    for _ in range(100):  # a broker deletes a topic when it gets to it
        if settings.namespace + STREAMS_CHANGELOG not in TopicAdmin(settings).partitions():
            break
        pause.wait(0.05)
    _make(settings)
