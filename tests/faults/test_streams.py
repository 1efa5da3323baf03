"""Workers share a stream, are killed, come and go: each window is told once, and is what it must be."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from confluent_kafka import Message, Producer
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import AGGREGATES, LATE, READINGS, declarations
from workers import await_ready, kill, start_worker, stop, tail

pytestmark = [pytest.mark.broker, pytest.mark.faults]

READINGS_SENT = int(os.environ.get("EASYREMOTE_TEST_READINGS", "144000"))
"""The issue's run has 2,000,000, and takes a minute of kills."""
A_SECOND = int(os.environ.get("EASYREMOTE_TEST_READINGS_A_SECOND", "12000"))
DEVICES = 200
WINDOW_MS = 10_000
LATENESS_MS = 5_000
BASE = 1_650_000_000_000
WORKERS = 3
KILL_EACH_S = 2.5
ENVIRONMENT = {
    "EASYREMOTE_ROLES": "streams",
    "EASYREMOTE_WINDOW_S": str(WINDOW_MS / 1000),
    "EASYREMOTE_LATENESS_S": str(LATENESS_MS / 1000),
    "EASYREMOTE_IDLE_S": "3600",
    "EASYREMOTE_Z_THRESHOLD": "0",
}
Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _readings() -> Columns:
    """Return device, event time and value: a reading a second of each, out of order within the lateness."""
    rng = np.random.default_rng(11)
    device = np.tile(np.arange(DEVICES), READINGS_SENT // DEVICES)
    event_ms = BASE + np.repeat(np.arange(READINGS_SENT // DEVICES), DEVICES) * 1_000
    # Sums of quarters are exact in any order.
    value = np.round(rng.normal(80, 20, len(device)) * 4) / 4
    order = np.argsort(event_ms + rng.integers(0, LATENESS_MS, len(device)), kind="stable")
    return device[order], event_ms[order], value[order]


def _expected(readings: Columns) -> dict[tuple[str, int], tuple[float, ...]]:
    device, event_ms, value = readings
    start = event_ms - event_ms % WINDOW_MS
    order = np.lexsort((start, device))
    device, start, value = device[order], start[order], value[order]
    first = np.flatnonzero((np.diff(device, prepend=-1) != 0) | (np.diff(start, prepend=-1) != 0))
    rows: dict[tuple[str, int], tuple[float, ...]] = {}
    for begin, end in zip(first.tolist(), [*first[1:].tolist(), len(device)], strict=True):
        of = value[begin:end]
        facts = (len(of), float(of.sum()), float(of.min()), float(of.max()), float(of.var()))
        rows[f"d{device[begin]}", int(start[begin])] = facts
    return rows


def _produce(settings: Settings, readings: Columns, done: threading.Event) -> None:
    producer = Producer(
        {"bootstrap.servers": settings.bootstrap_servers(), "enable.idempotence": True, "linger.ms": 20}
    )
    topic = settings.namespace + READINGS
    pause = threading.Event()
    device, event_ms, value = (column.tolist() for column in readings)
    for number in range(len(device)):
        name = f"d{device[number]}"
        record = f'{{"device_id":"{name}","metric":"m","value":{value[number]},"timestamp_ms":{event_ms[number]}}}'
        producer.produce(topic, record, key=name)
        if number % (A_SECOND // 20) == 0:
            producer.poll(0)
            pause.wait(0.05)
    last_ms = event_ms[-1] + 10 * WINDOW_MS
    for one in range(DEVICES):  # closes the last windows of each
        row = {"device_id": f"d{one}", "metric": "m", "value": 0.0, "timestamp_ms": last_ms}
        producer.produce(topic, json.dumps(row), key=f"d{one}")
    assert producer.flush(30) == 0
    done.set()


@contextmanager
def _fed(
    settings: Settings, readings: Columns, count: int, environment: Mapping[str, str] = ENVIRONMENT
) -> Iterator[tuple[list[subprocess.Popen[bytes]], threading.Event]]:
    """Run so many workers while readings are produced; say when all are, and stop the workers that are there then."""
    TopicAdmin(settings).ensure(declarations())
    workers = [start_worker(settings, **environment) for _ in range(count)]
    produced = threading.Event()
    try:
        await_ready(settings, "streams", process=workers[0])
        threading.Thread(target=_produce, args=(settings, readings, produced), daemon=True).start()
        yield workers, produced
    finally:
        for worker in workers:
            if worker.poll() is None:
                stop(worker)


@pytest.mark.timeout(600)
def test_three_workers_of_which_one_is_killed_every_few_seconds_tell_each_window_once_and_right(
    settings: Settings,
) -> None:
    readings = _readings()
    expected = _expected(readings)
    chance = random.Random(3)
    kills = 0
    with _fed(settings, readings, WORKERS) as (workers, produced):
        with tail(settings, AGGREGATES) as aggregates, tail(settings, LATE) as late:
            while not produced.wait(KILL_EACH_S):
                which = chance.randrange(WORKERS)
                kill(workers[which])
                workers[which] = start_worker(settings, **ENVIRONMENT)
                kills += 1
            told = aggregates.wait_for(lambda messages: len(messages) >= len(expected), timeout_s=120)
            assert late.messages == []
        assert all(worker.poll() is None for worker in workers)
    _compare(told, expected)
    assert kills >= 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "how",
    [{}, {"EASYREMOTE_STANDBY": "true"}, {"EASYREMOTE_STANDBY": "true", "EASYREMOTE_STATE_KEYS": "10"}],
    ids=["from the changelog", "from a standby", "from a standby's disk"],
)
def test_going_from_one_worker_to_three_and_back_under_load_changes_no_result(
    settings: Settings, how: dict[str, str]
) -> None:
    readings = _readings()
    expected = _expected(readings)
    environment = ENVIRONMENT | how
    with (
        _fed(settings, readings, 1, environment) as (workers, produced),
        tail(settings, AGGREGATES) as aggregates,
    ):
        aggregates.wait_for(lambda messages: len(messages) >= DEVICES)
        workers += [start_worker(settings, **environment) for _ in range(2)]
        aggregates.wait_for(lambda messages: len(messages) >= len(expected) * 2 // 3, timeout_s=120)
        assert not produced.is_set()
        for leaving in workers[:2]:
            stop(leaving)
        told = aggregates.wait_for(lambda messages: len(messages) >= len(expected), timeout_s=120)
        assert workers[2].poll() is None
    _compare(told, expected)


@pytest.mark.timeout(600)
def test_workers_that_are_frozen_past_their_session_and_wake_tell_no_window_twice(settings: Settings) -> None:
    readings = _readings()
    expected = _expected(readings)
    chance = random.Random(5)
    frozen = 0
    # Nobody is silent for five seconds; but workers that are frozen one after the other have that much unread.
    environment = ENVIRONMENT | {"EASYREMOTE_STANDBY": "true", "EASYREMOTE_IDLE_S": "5"}
    with _fed(settings, readings, WORKERS, environment) as (workers, produced):
        with tail(settings, AGGREGATES) as aggregates, tail(settings, LATE) as late:
            while not produced.wait(chance.uniform(0.2, 1.5)):
                one = workers[chance.randrange(WORKERS)]
                one.send_signal(signal.SIGSTOP)
                produced.wait(chance.uniform(1.6, 3.5))  # the group's session is 1.5 s
                one.send_signal(signal.SIGCONT)
                frozen += 1
            told = aggregates.wait_for(
                lambda messages: len(_without_the_last(messages)) >= len(expected), timeout_s=120
            )
            assert late.messages == []
        assert all(worker.poll() is None for worker in workers)
    _compare(_without_the_last(told), expected)
    assert frozen >= 3


def _without_the_last(told: list[Message]) -> list[Message]:
    """Leave out the windows of the readings that only close the others: silence closes those."""
    last = BASE + (READINGS_SENT // DEVICES - 1) * 1_000 + LATENESS_MS
    return [one for one in told if json.loads(one.value() or b"")["window_start"] <= last]


@pytest.mark.timeout(600)
def test_at_least_once_loses_no_reading_though_a_worker_is_killed(settings: Settings) -> None:
    device, event_ms, value = _readings()
    half = len(device) // 2
    readings = device[:half], event_ms[:half], value[:half]
    expected = _expected(readings)
    environment = ENVIRONMENT | {"EASYREMOTE_DELIVERY": "at_least_once"}
    kills = 0
    with (
        _fed(settings, readings, 2, environment) as (workers, produced),
        tail(settings, AGGREGATES) as aggregates,
    ):
        while not produced.wait(KILL_EACH_S / 2):
            kill(workers[kills % 2])
            workers[kills % 2] = start_worker(settings, **environment)
            kills += 1
        told = aggregates.wait_for(lambda messages: len(_windows(messages)) >= len(expected), timeout_s=120)
        assert all(worker.poll() is None for worker in workers)
    counted = _windows(told)
    assert set(counted) == set(expected)
    # Some may be counted again after a crash, none too seldom; and few are, or this would have no use.
    assert [window for window, count in counted.items() if count < expected[window][0]] == []
    assert sum(count == expected[window][0] for window, count in counted.items()) > len(expected) / 2
    assert kills >= 3


def _windows(told: list[Message]) -> dict[tuple[str, int], int]:
    """Return the greatest count that was told of each window."""
    counted: dict[tuple[str, int], int] = {}
    for message in told:
        row = json.loads(message.value() or b"")
        window = row["device_id"], row["window_start"]
        counted[window] = max(counted.get(window, 0), row["count"])
    return counted


def _compare(told: list[Message], expected: dict[tuple[str, int], tuple[float, ...]]) -> None:
    rows: list[dict[str, Any]] = [json.loads(message.value() or b"") for message in told]
    counted = Counter((row["device_id"], row["window_start"]) for row in rows)
    assert {window: count for window, count in counted.items() if count != 1} == {}
    assert set(counted) == set(expected)
    for row in rows:
        window = expected[row["device_id"], row["window_start"]]
        assert (row["count"], row["sum"], row["min"], row["max"]) == window[:4]
        assert row["variance"] == pytest.approx(window[4], rel=1e-9, abs=1e-9)
