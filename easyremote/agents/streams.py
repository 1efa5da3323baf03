"""Readings become aggregates, alerts, late readings and dead letters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from easyremote.agents.partition_tasks import Names, PartitionTasks
from easyremote.pipelines.decoding import offsets_of
from easyremote.tally import tally
from easyremote.topics.catalog import AGGREGATES, ALERTS, LATE, MALFORMED_READINGS, READINGS, STREAMS_CHANGELOG
from easyremote.topics.deliveries import Output
from easyremote.topics.events import Batch
from easyremote.topics.limits import Unreadable, attempt
from easyremote.topics.odd_records import Place, dead_letter, late_record
from easyremote.topics.records import Aggregate, Alert, RecordRef, decode_reading, encode
from easyremote.topics.wire import uuid7
from easyremote.windows import Effects, EventTime, Kernel, Readings, Tumbling, ZScore

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings
    from easyremote.topics.progress import Heard
    from easyremote.windows.zscore import Anomalies

__all__ = ["Arrived", "ReadingsTask", "decode_readings", "readings_streams"]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch of `readings`: the messages, those that are readings as columns, and those that are none."""

    messages: Sequence[Message]
    places: Sequence[int]
    """Place in `messages` of each row of the columns."""
    readings: Readings | None
    malformed: Sequence[tuple[int, Exception]]


def decode_readings(_partition: int, messages: Sequence[Message]) -> Arrived:
    """Decode records once, to columns; what is no reading is told apart, not dropped."""
    malformed: list[tuple[int, Exception]] = []
    places: Sequence[int] = range(len(messages))
    try:
        rows = [decode_reading(message.value() or b"") for message in messages]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # one of them is no reading, whatever it is: each has its own reason
        rows, places = [], []
        for place, message in enumerate(messages):
            row = attempt(decode_reading, message.value())
            if isinstance(row, Unreadable):
                malformed.append((place, row.error))
            else:
                rows.append(row)
                places.append(place)
        tally.bury(messages[0].topic() or "", len(messages), len(malformed))
    else:
        if tally.streaks:
            tally.well(messages[0].topic() or "")
    if not rows:
        return Arrived(messages, places, None, malformed)
    readings = Readings(
        [(row.device_id, row.metric) for row in rows],
        np.array([row.value for row in rows], np.float64),
        np.array([row.timestamp_ms for row in rows], np.int64),
        offsets_of(messages, places),
    )
    return Arrived(messages, places, readings, malformed)


class ReadingsTask:
    """Windows and anomalies of one partition of `readings`.

    Parameters
    ----------
    settings : Settings
        Window, lateness, threshold, namespace.
    partition : int
        Its number.
    """

    def __init__(self, settings: Settings, partition: int) -> None:
        prefix = settings.namespace
        self._node_id = settings.node_id
        self._readings = prefix + READINGS
        self._aggregates, self._alerts = prefix + AGGREGATES, prefix + ALERTS
        self._late = Place(prefix + LATE, self._readings, partition)
        self._dead = Place(prefix + MALFORMED_READINGS, self._readings, partition)
        self._windows = Tumbling(round(settings.window_s * 1000))
        event_time = EventTime(round(settings.lateness_s * 1000), round(settings.idle_s * 1000))
        self._detector = ZScore(settings.z_threshold) if settings.z_threshold > 0 else None
        self._kernel = Kernel(self._windows, event_time, self._detector)
        self.resting = self._kernel.resting

    def step(self, batch: Batch[Arrived], now_ms: int) -> list[Output]:
        """Take a batch in; return aggregates, late readings, alerts and dead letters."""
        arrived = batch.content
        outputs: list[Output] = []
        if arrived.readings is not None:
            effects = self._kernel.step(arrived.readings, now_ms)
            outputs += self._aggregates_of(effects)
            outputs += self._late_of(effects, arrived)
            if effects.anomalies is not None:
                outputs += self._alerts_of(effects.anomalies, arrived.readings, batch.partition)
        for place, error in arrived.malformed:
            outputs.append(dead_letter(self._dead, arrived.messages[place], error, self._node_id))
        return outputs

    def tick(self, now_ms: int, heard: Mapping[str, Heard] | None = None) -> list[Output]:
        """Close the windows of series that are silent; `heard` is how long was listened, unset: until now."""
        return self._aggregates_of(self._kernel.close_idle(now_ms, None if heard is None else heard[self._readings]))

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return what has changed, for the changelog."""
        return self._kernel.changes()

    def restore(self, key: bytes, content: bytes) -> None:
        """Put a series back from the changelog."""
        self._kernel.restore(key, content)

    def _aggregates_of(self, effects: Effects) -> list[Output]:
        closed = effects.closed
        if not len(closed):
            return []
        devices, metrics = zip(*effects.closed_keys, strict=True)
        start, count, exact = closed["start"], closed["count"], closed["sum"] + closed["lost"]
        facts = (start, start + self._windows.size_ms, count, exact, exact / count, closed["min"], closed["max"])
        columns = (column.tolist() for column in (*facts, closed["m2"] / count))
        values = map(encode, map(Aggregate, devices, metrics, *columns))
        return list(map(Output, repeat(self._aggregates), map(str.encode, devices), values))

    def _late_of(self, effects: Effects, arrived: Arrived) -> list[Output]:
        return [
            late_record(
                (self._late, self._dead),
                arrived.messages[arrived.places[late.place]],
                late,
                (late.window_start, late.window_start + self._windows.size_ms),
                self._node_id,
            )
            for late in effects.late
        ]

    def _alerts_of(self, anomalies: Anomalies, readings: Readings, partition: int) -> list[Output]:
        assert self._detector is not None
        outputs = []
        columns = (anomalies.place, anomalies.expected, anomalies.std_dev, anomalies.score)
        for place, expected, std_dev, score in zip(*(column.tolist() for column in columns), strict=True):
            device_id, metric = readings.keys[place]
            value, offset = float(readings.values[place]), int(readings.offsets[place])
            where = "above" if score > 0 else "below"
            alert = Alert(
                id=_alert_id(int(readings.event_ms[place]), self._readings, partition, offset),
                kind="z_score",
                device_id=device_id,
                metric=metric,
                timestamp_ms=int(readings.event_ms[place]),
                value=value,
                expected=expected,
                std_dev=std_dev,
                score=score,
                threshold=self._detector.threshold,
                message=f"{metric} of {device_id} is {value:g}, {abs(score):.1f} standard deviations {where} the "
                f"expected {expected:g}",
                records=[RecordRef(self._readings, partition, offset)],
            )
            outputs.append(Output(self._alerts, device_id.encode(), encode(alert)))
        return outputs


def readings_streams(settings: Settings, group: str, failed: Callable[[Exception], None]) -> PartitionTasks[Arrived]:
    """Return what runs the tasks of `readings`, exactly once; `group` is the full name of the source's."""
    prefix = settings.namespace
    names = Names(
        group, (prefix + READINGS,), prefix + STREAMS_CHANGELOG, f"{prefix}easyremote.streams.{settings.node_id}"
    )
    return PartitionTasks(settings, names, lambda partition: ReadingsTask(settings, partition), failed)


def _alert_id(event_ms: int, topic: str, partition: int, offset: int) -> str:
    # From the record's place: the same reading, read again after a crash, is the same alert.
    place = f"{topic}/{partition}/{offset}"
    return uuid7(event_ms, hashlib.blake2b(place.encode(), digest_size=10).digest())
