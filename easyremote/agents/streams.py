"""The stream agent: readings become aggregates, alerts, late readings and dead letters, exactly once."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from easyremote.clock import now_ms
from easyremote.errors import TopicError
from easyremote.topics.catalog import AGGREGATES, ALERTS, LATE, MALFORMED_READINGS, READINGS, STREAMS_CHANGELOG
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent, Tick
from easyremote.topics.letters import Failure, dead_letter_headers
from easyremote.topics.records import Aggregate, Alert, Lateness, RecordRef, decode_reading, encode
from easyremote.topics.source import BatchSource
from easyremote.topics.transactions import MembershipChanged, Output, Transactions, committed_offsets, read_latest
from easyremote.topics.wire import headers_of, uuid7
from easyremote.windows import Effects, EventTime, Kernel, Readings, Tumbling, ZScore

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.settings import Settings
    from easyremote.windows.zscore import Anomalies

__all__ = ["Arrived", "Streams", "decode_readings"]

log = structlog.get_logger(__name__)

_POSITION = b"position"
"""Key of the changelog under which stands the next offset to read; a series' key is a JSON array."""


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
    except (msgspec.MsgspecError, UnicodeDecodeError):
        rows, places = [], []
        for place, message in enumerate(messages):
            try:
                rows.append(decode_reading(message.value() or b""))
                places.append(place)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                malformed.append((place, error))
    if not rows:
        return Arrived(messages, places, None, malformed)
    readings = Readings(
        [(row.device_id, row.metric) for row in rows],
        np.array([row.value for row in rows], np.float64),
        np.array([row.timestamp_ms for row in rows], np.int64),
        _offsets(messages, places),
    )
    return Arrived(messages, places, readings, malformed)


def _offsets(messages: Sequence[Message], places: Sequence[int]) -> npt.NDArray[np.int64]:
    first, last = messages[places[0]].offset() or 0, messages[places[-1]].offset() or 0
    if last - first + 1 == len(places):
        return np.arange(first, last + 1)
    # A transaction's marker or a malformed record leaves a hole.
    return np.array([messages[place].offset() for place in places], np.int64)


_Work = tuple[SourceEvent[Arrived], BatchSource[Arrived]]


@dataclass
class _Partition:
    """One partition while this worker holds it: its kernel, and what a transaction has not taken yet."""

    kernel: Kernel
    outputs: list[Output] = field(default_factory=list)
    next_offset: int | None = None


class Streams:
    """Runs the kernels of the partitions that this worker holds.

    Outputs, changed state and offsets are committed in one transaction at each tick of the source. A partition that
    comes to this worker begins with the state and the position that its last transaction left in the changelog.

    Parameters
    ----------
    settings : Settings
        Window, lateness, threshold, namespace.
    group : str
        Full name of the source's consumer group.
    failed : callable
        Told, on the thread, of an error after which nothing more is done: the worker must end, and what is not
        committed is done again after it.
    """

    def __init__(self, settings: Settings, group: str, failed: Callable[[Exception], None]) -> None:
        prefix = settings.namespace
        self._settings = settings
        self._group = group
        self._readings = prefix + READINGS
        self._changelog = prefix + STREAMS_CHANGELOG
        self._aggregates, self._alerts = prefix + AGGREGATES, prefix + ALERTS
        self._late, self._dead = prefix + LATE, prefix + MALFORMED_READINGS
        self._windows = Tumbling(round(settings.window_s * 1000))
        self._event_time = EventTime(round(settings.lateness_s * 1000), round(settings.idle_s * 1000))
        self._detector = ZScore(settings.z_threshold) if settings.z_threshold > 0 else None
        self._transactions = Transactions(
            settings, f"{prefix}easyremote.streams.{settings.node_id}", group, self._readings
        )
        self._restored: dict[int, _Partition] = {}
        self._held: dict[int, _Partition] = {}
        self._failed = failed
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; nothing is pending once the source has stopped."""
        self._work.put(None)
        self._thread.join()
        self._transactions.close()

    def restore(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """Read the state of partitions from the changelog; return where to go on reading, where it says so."""
        # Whoever held them may have a transaction open: once the offsets are stable it is decided.
        committed_offsets(self._settings, self._group, self._readings, partitions)
        starts = {}
        for number, latest in read_latest(self._settings, self._changelog, partitions).items():
            kernel = Kernel(self._windows, self._event_time, self._detector)
            position = latest.pop(_POSITION, None)
            for key, content in latest.items():
                kernel.restore(key, content)
            if position is not None:
                starts[number] = int(position)
            self._restored[number] = _Partition(kernel)
            log.info("state restored", partition=number, series=kernel.series, position=position)
        return starts

    async def handle(self, event: SourceEvent[Arrived], source: BatchSource[Arrived]) -> None:
        """Take one event of the source; the work is done on a thread, in order, so the event loop stays free."""
        self._work.put((event, source))

    def _run(self) -> None:
        failed = False
        while (work := self._work.get()) is not None:
            event, source = work
            try:
                if not failed:
                    self._deal_with(event)
            except Exception as error:  # noqa: BLE001  # the thread's own end: the worker must hear of it
                failed = True
                self._failed(error)
            finally:
                if isinstance(event, Revoked):
                    event.done.set()
                elif not isinstance(event, Assigned):
                    source.finished()

    def _deal_with(self, event: SourceEvent[Arrived]) -> None:
        if isinstance(event, Batch):
            self._step(event)
        elif isinstance(event, Tick):
            self._tick(event)
        elif isinstance(event, Assigned):
            for number in event.partitions:
                self._held[number] = self._restored.pop(number)
        else:
            try:
                if not event.lost:
                    self._hand_over(event.group)
            finally:
                for number in event.partitions:
                    self._held.pop(number, None)

    def _step(self, batch: Batch[Arrived]) -> None:
        held = self._held.get(batch.partition)
        if held is None:
            return  # lost meanwhile; whoever holds it now reads it
        arrived = batch.content
        if arrived.readings is not None:
            effects = held.kernel.step(arrived.readings, now_ms())
            held.outputs += self._aggregates_of(effects)
            held.outputs += self._late_of(effects, arrived, batch.partition)
            if effects.anomalies is not None:
                held.outputs += self._alerts_of(effects.anomalies, arrived.readings, batch.partition)
        for place, error in arrived.malformed:
            held.outputs.append(self._dead_letter(arrived.messages[place], batch.partition, error))
        held.next_offset = batch.next_offset

    def _tick(self, tick: Tick) -> None:
        now = now_ms()
        for held in self._held.values():
            held.outputs += self._aggregates_of(held.kernel.close_idle(now))
        try:
            self._commit(tick.group)
        except MembershipChanged as error:
            log.info("the group changes; committing at the next tick", error=str(error))

    def _hand_over(self, group: Any) -> None:  # Any: opaque to everyone but the client
        try:
            self._commit(group)
        except TopicError as error:
            log.warning("handing over without a last commit; the next owner does it again", error=str(error))

    def _commit(self, group: Any) -> None:
        outputs: list[Output] = []
        offsets: dict[int, int] = {}
        for number, held in self._held.items():
            if held.next_offset is not None:
                offsets[number] = held.next_offset
            # What has changed joins the outputs first, so that a commit that fails can be tried again whole.
            held.outputs += [Output(self._changelog, key, value, number) for key, value in held.kernel.changes()]
            outputs += held.outputs
        outputs += [Output(self._changelog, _POSITION, b"%d" % offset, number) for number, offset in offsets.items()]
        if not outputs:
            return
        self._transactions.commit(outputs, offsets, group)
        for held in self._held.values():
            held.outputs, held.next_offset = [], None

    def _aggregates_of(self, effects: Effects) -> list[Output]:
        outputs = []
        size_ms = self._windows.size_ms
        for (device_id, metric), row in zip(effects.closed_keys, effects.closed.tolist(), strict=True):
            start, count, total, lost, m2, least, most = row
            exact = total + lost
            aggregate = Aggregate(
                device_id=device_id,
                metric=metric,
                window_start=start,
                window_end=start + size_ms,
                count=count,
                sum=exact,
                average=exact / count,
                min=least,
                max=most,
                variance=m2 / count,
            )
            outputs.append(Output(self._aggregates, device_id.encode(), encode(aggregate)))
        return outputs

    def _late_of(self, effects: Effects, arrived: Arrived, partition: int) -> list[Output]:
        outputs = []
        for late in effects.late:
            message = arrived.messages[arrived.places[late.place]]
            lateness = Lateness(
                window_start=late.window_start,
                window_end=late.window_start + self._windows.size_ms,
                lateness_ms=late.lateness_ms,
                reason=late.reason,
                source=RecordRef(self._readings, partition, message.offset() or 0),
            )
            reading = msgspec.json.decode(message.value() or b"")
            value = encode({**reading, "lateness": lateness})
            outputs.append(Output(self._late, reading["device_id"].encode(), value))
        return outputs

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

    def _dead_letter(self, message: Message, partition: int, error: Exception) -> Output:
        origin = RecordRef(self._readings, partition, message.offset() or 0)
        key = message.key()
        return Output(
            self._dead,
            key.encode() if isinstance(key, str) else key,
            message.value(),
            headers=dead_letter_headers(headers_of(message), origin, error, Failure(node_id=self._settings.node_id)),
        )


def _alert_id(event_ms: int, topic: str, partition: int, offset: int) -> str:
    # From the record's place: the same reading, read again after a crash, is the same alert.
    place = f"{topic}/{partition}/{offset}"
    return uuid7(event_ms, hashlib.blake2b(place.encode(), digest_size=10).digest())
