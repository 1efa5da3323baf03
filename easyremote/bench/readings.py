"""Readings for `easyremote bench stream`: written, read bare, and followed until the engine has committed them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from easyremote.errors import ConfigError
from easyremote.topics.catalog import TopicDeclaration

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings

__all__ = ["DEVICES", "PARTITIONS", "Commits", "Writer", "bench_topic", "consume_rate", "fill"]

DEVICES = 1_000
PARTITIONS = 4
_BASE_MS = 1_700_000_000_000


class Writer:
    """Writes a reading a second of each device, by the readings' own time, each device's to its partition.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    topic : str
        Without the namespace.
    devices, partitions : int
        How many.
    """

    def __init__(self, settings: Settings, topic: str, devices: int = DEVICES, partitions: int = PARTITIONS) -> None:
        self._topic = settings.namespace + topic
        self._devices, self._partitions = devices, partitions
        self._random = np.random.default_rng(7)
        self.written = 0
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers(),
                "linger.ms": 50,
                "queue.buffering.max.messages": 1_000_000,
                # A batch that is sent again must not come after the next one: its readings would be late.
                "enable.idempotence": True,
            }
        )

    def write(self, readings: int) -> None:
        """Write so many more."""
        producer, topic = self._producer, self._topic
        values = self._random.normal(20, 2, readings).round(3).tolist()
        for number, value in enumerate(values, self.written):
            device = number % self._devices
            at_ms = _BASE_MS + number // self._devices * 1_000
            record = f'{{"device_id":"device-{device}","metric":"temperature","value":{value},"timestamp_ms":{at_ms}}}'
            while True:
                try:
                    producer.produce(topic, record, f"device-{device}", device % self._partitions)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        producer.poll(0)
        self.written += readings

    def flush(self) -> None:
        """Wait until all is acknowledged.

        Raises
        ------
        ConfigError
            If that takes more than a minute.
        """
        if self._producer.flush(60):
            raise ConfigError("the readings were not acknowledged within 60 s")


def fill(settings: Settings, topic: str, readings: int, devices: int = DEVICES, partitions: int = PARTITIONS) -> None:
    """Write readings, and wait until they are there."""
    writer = Writer(settings, topic, devices, partitions)
    writer.write(readings)
    writer.flush()


def consume_rate(settings: Settings, topic: str, readings: int) -> float:
    """Return how many readings a second are read and thrown away."""
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
        consumer.assign([TopicPartition(settings.namespace + topic, number, 0) for number in range(PARTITIONS)])
        if consumer.poll(10) is None:
            raise ConfigError("the readings cannot be read")
        started, seen = time.perf_counter(), 1
        while seen < readings:
            seen += len(consumer.consume(5_000, 0.2))
        return readings / (time.perf_counter() - started)
    finally:
        consumer.close()


def bench_topic(name: str, partitions: int = PARTITIONS, *, compacted: bool = False) -> TopicDeclaration:
    """Return a topic of a measurement's own."""
    return TopicDeclaration(
        name=name,
        partitions=partitions,
        cleanup="compact" if compacted else "delete",
        retention_ms=-1,
        timestamp_type="LogAppendTime",
        key="device",
        value="a reading",
        written_by="the measurement",
        read_by="the measurement",
    )


class Commits:
    """Follows where the engine's transactions stand, by the broker's clock: the changelog tells both.

    Parameters
    ----------
    readings : int, optional
        With how many all is done; unset: never.
    """

    def __init__(self, readings: int | None = None) -> None:
        self._readings = readings
        self.total = 0
        """Readings whose results are committed."""
        self.changed = threading.Event()
        self._stand: dict[tuple[int, bytes], int] = {}
        self._first: tuple[int, int] | None = None
        self._last_ms = 0
        self.done = threading.Event()

    def take(self, messages: Sequence[Message]) -> None:
        """Take records of the changelog in."""
        for message in messages:
            key = message.key()
            if not isinstance(key, bytes) or not key.startswith(b"position"):
                continue
            self._stand[message.partition() or 0, key] = int(message.value() or b"0")
            self.total = sum(self._stand.values())
            self._last_ms = message.timestamp()[1]
            if self._first is None:
                self._first = (self.total, self._last_ms)
            if self.total == self._readings:
                self.done.set()
        self.changed.set()

    def rate(self) -> float:
        """Return readings per second after the first commit."""
        if self._first is None or self._last_ms == self._first[1]:
            raise ConfigError("all was done in one transaction: measure with more readings")
        return (self.total - self._first[0]) / ((self._last_ms - self._first[1]) / 1000)
