"""How long a reading takes to the result that it leads to, at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from confluent_kafka import Producer

from easyremote.bench.programs import log_of, worker
from easyremote.bench.readings import DEVICES, PARTITIONS
from easyremote.errors import ConfigError
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import AGGREGATES, READINGS, declarations
from easyremote.topics.follower import Follower

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings

__all__ = ["LATENCY_RATE", "latency"]

LATENCY_RATE = 50_000
_RUN_S = 12
_WARMUP_S = 6
"""A worker is up after three seconds, and then has to catch up."""


class _Results:
    """Notes how long after their end windows are told."""

    def __init__(self) -> None:
        self.delays_ms: list[float] = []
        self._from_ms = time.time() * 1000 + _WARMUP_S * 1000

    def take(self, messages: Sequence[Message]) -> None:
        """Take results in."""
        now_ms = time.time() * 1000
        for message in messages:
            end_ms = msgspec.json.decode(message.value() or b"")["window_end"]
            if end_ms >= self._from_ms:
                self.delays_ms.append(now_ms - end_ms)


def latency(settings: Settings) -> tuple[float, float]:
    """Return p50 and p99 from the end of a 1 s window, told by the next reading of its device, to its result, ms."""
    TopicAdmin(settings).ensure(declarations())
    results = _Results()
    environment = {
        "EASYREMOTE_ROLES": "streams",
        "EASYREMOTE_WINDOW_S": "1",
        "EASYREMOTE_LATENESS_S": "0",
        "EASYREMOTE_Z_THRESHOLD": "0",
    }
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers(), "linger.ms": 2, "enable.idempotence": True})
    follower = Follower(settings, settings.namespace + AGGREGATES, results.take, start="beginning")
    pause = threading.Event()
    each = LATENCY_RATE // 100
    try:
        with worker(settings, environment):
            started = time.perf_counter()
            for turn in range(_RUN_S * 100):
                now_ms = int(time.time() * 1000)
                for number in range(turn * each, (turn + 1) * each):
                    device = number % DEVICES
                    record = f'{{"device_id":"d{device}","metric":"m","value":1.5,"timestamp_ms":{now_ms}}}'
                    producer.produce(settings.namespace + READINGS, record, partition=device % PARTITIONS)
                producer.poll(0)
                pause.wait(max(0.0, started + (turn + 1) / 100 - time.perf_counter()))
            producer.flush(10)
            pause.wait(1.0)
    finally:
        follower.close()
    if len(results.delays_ms) < DEVICES:
        raise ConfigError(f"of the windows {len(results.delays_ms)} were told: see {log_of(settings)}")
    p50, p99 = np.quantile(results.delays_ms, [0.5, 0.99]).tolist()
    return p50, p99
