"""Readings through a real worker on a real broker: aggregates, alerts, late ones, dead letters; exactly once."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest
from confluent_kafka import Message
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.wire import headers_of
from workers import await_ready, kill, producer_to, running, start_worker, stop, tail

pytestmark = pytest.mark.broker

BASE = 1_650_000_000_000
"""April 2022: a replay."""


def _reading(device: str, value: float, event_ms: int, **more: object) -> dict[str, Any]:
    return {"device_id": device, "metric": "flow", "value": value, "timestamp_ms": event_ms, **more}


def _produce(settings: Settings, rows: list[dict[str, Any] | bytes]) -> None:
    producer = producer_to(settings.bootstrap_servers())
    for row in rows:
        raw = row if isinstance(row, bytes) else json.dumps(row).encode()
        key = b"raw" if isinstance(row, bytes) else row["device_id"].encode()
        producer.produce(settings.namespace + "readings", raw, key=key)
        producer.poll(0)
    assert producer.flush(30) == 0


def _values(messages: list[Message]) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"null") for message in messages]


def test_readings_become_aggregates_and_the_odd_ones_have_their_topics(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "streams", EASYREMOTE_LATENESS_S="0", EASYREMOTE_WINDOW_S="10"):
        _produce(
            settings,
            [
                _reading("pump", 1.0, BASE),
                _reading("pump", 3.0, BASE + 9_999),
                b'{"device_id": "pump"}',
                _reading("pump", 9.0, BASE + 10_000),
                _reading("pump", 7.0, BASE + 5_000, unit="l/s"),
            ],
        )
        with tail(settings, "aggregates") as aggregates:
            (first,) = _values(aggregates.wait_for(lambda messages: len(messages) == 1))
        assert first == {
            "device_id": "pump",
            "metric": "flow",
            "window_start": BASE,
            "window_end": BASE + 10_000,
            "count": 2,
            "sum": 4.0,
            "average": 2.0,
            "min": 1.0,
            "max": 3.0,
            "variance": 1.0,
            "revision": 0,
            "final": True,
        }
        with tail(settings, "readings.late") as late:
            (one,) = _values(late.wait_for(lambda messages: len(messages) == 1))
        lateness = one.pop("lateness")
        assert one == _reading("pump", 7.0, BASE + 5_000, unit="l/s")
        assert (lateness["window_start"], lateness["lateness_ms"], lateness["reason"]) == (BASE, 0, "late")
        with tail(settings, "readings.dlq") as dead:
            (letter,) = dead.wait_for(lambda messages: len(messages) == 1)
        assert letter.value() == b'{"device_id": "pump"}'
        headers = dict(headers_of(letter))
        assert b"metric" in headers["easyremote_reason"]
        assert headers["easyremote_source_topic"] == (settings.namespace + "readings").encode()


def test_a_jump_of_a_series_is_an_alert_that_names_its_record(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    noise = random.Random(3)
    rows: list[dict[str, Any] | bytes] = [
        _reading("pipe", 100 + noise.gauss(0, 1), BASE + 1_000 * i) for i in range(200)
    ]
    rows[150] = _reading("pipe", 24.0, BASE + 150_000)
    with running(settings, "streams"):
        _produce(settings, rows)
        with tail(settings, "alerts") as alerts:
            (message,) = alerts.wait_for(lambda messages: len(messages) == 1)
        (alert,) = _values([message])
        assert message.key() == b"pipe"
        assert (alert["device_id"], alert["metric"], alert["value"]) == ("pipe", "flow", 24.0)
        assert alert["timestamp_ms"] == BASE + 150_000
        assert alert["score"] < -4
        assert alert["expected"] == pytest.approx(100, abs=1)
        assert alert["records"][0]["offset"] == 150


@pytest.mark.faults
def test_a_worker_started_again_closes_what_was_open_after_silence(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    patient, worker = {"EASYREMOTE_ROLES": "streams", "EASYREMOTE_IDLE_S": "3600"}, None
    try:
        worker = start_worker(settings, **patient)
        with tail(settings, "streams.changelog") as state:
            _produce(settings, [_reading("pump", 1.5, BASE)])
            state.wait_for(lambda messages: any(one.key() == b'["pump","flow"]' for one in messages), 60)
        kill(worker)
        # Its first transaction is of what silence has closed: nothing is read.
        worker = start_worker(settings, **patient | {"EASYREMOTE_IDLE_S": "1"})
        with tail(settings, "aggregates") as aggregates:
            (one,) = _values(aggregates.wait_for(lambda messages: len(messages) == 1, 60))
        assert (one["device_id"], one["sum"], one["final"]) == ("pump", 1.5, True)
        stop(worker)
    finally:
        if worker is not None:
            kill(worker)


@pytest.mark.faults
def test_each_window_and_alert_comes_once_though_workers_are_killed(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    chance = random.Random(11)
    devices = [f"device-{number}" for number in range(40)]
    expected: dict[tuple[str, int], list[float]] = defaultdict(list)
    rounds: list[list[dict[str, Any] | bytes]] = []
    for turn in range(4):
        rows: list[dict[str, Any] | bytes] = []
        for step in range(100):
            for device in devices:
                event_ms = BASE + (turn * 100 + step) * 1_000
                value = 50.0 if (turn, step) == (2, 50) else chance.gauss(0, 1)
                rows.append(_reading(device, value, event_ms))
                expected[device, event_ms - event_ms % 10_000].append(value)
        rounds.append(rows)
    last = BASE + 400_000
    rounds[-1] += [_reading(device, 0.0, last + 10_000) for device in devices]

    worker = start_worker(settings, EASYREMOTE_ROLES="streams", EASYREMOTE_LATENESS_S="0")
    try:
        await_ready(settings, "streams")
        with tail(settings, "aggregates") as aggregates, tail(settings, "alerts") as alerts:
            for turn, rows in enumerate(rounds):
                before = len(aggregates.messages)
                _produce(settings, rows)
                if turn < 3:
                    # In the middle of the work: some of this round is committed, some is not.
                    aggregates.wait_for(lambda messages, before=before: len(messages) > before)  # type: ignore[misc]
                    kill(worker)
                    worker = start_worker(settings, EASYREMOTE_ROLES="streams", EASYREMOTE_LATENESS_S="0")
            found = _values(aggregates.wait_for(lambda messages: len(messages) >= len(expected), 60))
            alarmed = _values(alerts.wait_for(lambda messages: len(messages) >= len(devices), 60))
            stop(worker)
            found, alarmed = _values(aggregates.messages), _values(alerts.messages)
    finally:
        kill(worker)
    assert len(found) == len(expected)
    for one in found:
        values = expected.pop((one["device_id"], one["window_start"]))
        assert one["count"] == len(values)
        assert one["sum"] == pytest.approx(sum(values))
    assert not expected
    assert sorted(one["device_id"] for one in alarmed if one["value"] == 50.0) == sorted(devices)
