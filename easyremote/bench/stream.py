"""A replay of JSON readings of 1,000 devices on 4 partitions into 10 s tumbling windows.

Measured are raw `consume` (the floor); this engine, as a worker with the role `streams`, from its first commit to its
last, exactly once, aggregates and changelog written; and a plain Faust agent with a table that does the same sums.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from easyremote.bench.programs import log_of, worker
from easyremote.bench.report import Report, measured_kafka, step
from easyremote.errors import ConfigError
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS, STREAMS_CHANGELOG, declarations
from easyremote.topics.follower import Follower

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings

__all__ = ["main"]

DEVICES = 1_000
PARTITIONS = 4
_FAUST_READINGS = 100_000
"""Of the plain Faust agent: its rate does not depend on how many there are."""
_BASE_MS = 1_700_000_000_000
_LIMIT_S = 300.0
_STOP_S = 10.0


def main(json_file: Path | None, readings: int) -> None:
    """Measure, print, and write."""
    report = Report()
    few = min(readings, _FAUST_READINGS)
    with measured_kafka("") as kafka:
        engine, detector, faust = (
            kafka.model_copy(update={"namespace": f"bench-{name}-{os.getpid()}-"})
            for name in ("engine", "detector", "faust")
        )
        for settings, count in ((engine, readings), (detector, readings), (faust, few)):
            with step(f"writing {count:,} readings"):
                TopicAdmin(settings).ensure(declarations())
                _fill(settings, count)
        with step("raw consume"):
            report.add("consume_rate", _consume(engine, readings), "readings/s")
        with step("this engine"):
            report.add("engine_rate", _engine(engine, readings, threshold=0), "readings/s")
        with step("this engine with the detector"):
            report.add("engine_with_detector_rate", _engine(detector, readings, threshold=4), "readings/s")
        with step(f"a plain Faust agent, {few:,} of them"):
            report.add("faust_rate", _faust(faust, few), "readings/s")
    figures = {name: value for name, value, _ in report.results}
    report.ratios["rate_to_consume"] = figures["engine_rate"] / figures["consume_rate"]
    report.ratios["rate_to_faust"] = figures["engine_rate"] / figures["faust_rate"]
    report.finish(json_file)


def _fill(settings: Settings, readings: int) -> None:
    """Write a reading a second of each device, each device's to its partition."""
    producer = Producer(
        {"bootstrap.servers": settings.bootstrap_servers(), "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
    )
    topic = settings.namespace + READINGS
    values = np.random.default_rng(7).normal(20, 2, readings).round(3).tolist()
    for number, value in enumerate(values):
        device = number % DEVICES
        event_ms = _BASE_MS + number // DEVICES * 1_000
        record = f'{{"device_id":"device-{device}","metric":"temperature","value":{value},"timestamp_ms":{event_ms}}}'
        while True:
            try:
                producer.produce(topic, record, partition=device % PARTITIONS)
            except BufferError:
                producer.poll(0.1)
            else:
                break
    if producer.flush(60):
        raise ConfigError("the readings were not acknowledged within 60 s")


def _consume(settings: Settings, readings: int) -> float:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers(),
            "group.id": "bench-consume",
            "enable.auto.commit": False,
            "queued.min.messages": 100_000,
            "fetch.queue.backoff.ms": 5,
        }
    )
    try:
        consumer.assign([TopicPartition(settings.namespace + READINGS, number, 0) for number in range(PARTITIONS)])
        if consumer.poll(10) is None:
            raise ConfigError("the readings cannot be read")
        started, seen = time.perf_counter(), 1
        while seen < readings:
            seen += len(consumer.consume(5_000, 0.2))
        return readings / (time.perf_counter() - started)
    finally:
        consumer.close()


class _Commits:
    """Follows where the engine's transactions stand, by the broker's clock: the changelog tells both."""

    def __init__(self, readings: int) -> None:
        self._readings = readings
        self._stand: dict[int, int] = {}
        self._first: tuple[int, int] | None = None
        self._last_ms = 0
        self.done = threading.Event()

    def take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.key() != b"position":
                continue
            self._stand[message.partition() or 0] = int(message.value() or b"0")
            total = sum(self._stand.values())
            self._last_ms = message.timestamp()[1]
            if self._first is None:
                self._first = (total, self._last_ms)
            if total == self._readings:
                self.done.set()

    def rate(self) -> float:
        """Return readings per second after the first commit."""
        if self._first is None or self._last_ms == self._first[1]:
            raise ConfigError("all was done in one transaction: measure with more readings")
        return (self._readings - self._first[0]) / ((self._last_ms - self._first[1]) / 1000)


def _engine(settings: Settings, readings: int, *, threshold: int) -> float:
    commits = _Commits(readings)
    follower = Follower(settings, settings.namespace + STREAMS_CHANGELOG, commits.take, start="beginning")
    environment = {
        "EASYREMOTE_ROLES": "streams",
        "EASYREMOTE_WINDOW_S": "10",
        "EASYREMOTE_LATENESS_S": "0",
        "EASYREMOTE_Z_THRESHOLD": str(threshold),
    }
    try:
        with worker(settings, environment):
            if not commits.done.wait(_LIMIT_S):
                raise ConfigError(f"the engine was not done after {_LIMIT_S:g} s")
            return commits.rate()
    finally:
        follower.close()


def _faust(settings: Settings, readings: int) -> float:
    result = settings.data_dir / "plain-faust.txt"
    result.unlink(missing_ok=True)
    environment = {
        "BENCH_TOPIC": settings.namespace + READINGS,
        "BENCH_READINGS": str(readings),
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_RESULT": str(result),
    }
    with worker(settings, environment, "easyremote.bench.plain_faust") as process:
        process.wait(_LIMIT_S)
    if not result.exists():
        raise ConfigError(f"the plain Faust agent ended without a result: see {log_of(settings)}")
    return float(result.read_text())
