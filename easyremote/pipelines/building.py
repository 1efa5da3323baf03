"""How a pipeline is written: `stream(...).key_by(...).window(...).aggregate(...).to(...)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np

from easyremote.errors import WindowError
from easyremote.pipelines.detection import Detection
from easyremote.pipelines.pipeline import Pipeline, Record, Source, Step
from easyremote.pipelines.registry import check_source, pipeline_of
from easyremote.pipelines.stages import Joining, Passing
from easyremote.pipelines.steps import OfEach
from easyremote.pipelines.telling import Detected, Joined, Windows
from easyremote.windows import AsOfJoin, IntervalJoin, Join
from easyremote.windows.assigners import Assigner, CountWindow, EventTime, Hopping, Session, Sliding
from easyremote.windows.detectors import AlertRule, Detector
from easyremote.windows.durations import Duration
from easyremote.windows.interval_join import How
from easyremote.windows.windowed import Emission, Windowed

__all__ = ["Stream", "stream"]

F = TypeVar("F", bound=Callable[..., object])

READINGS_TYPES: Mapping[str, type] = {"device_id": str, "metric": str, "value": float}
_TYPES = (str, int, float, bool, list, dict)


def stream(
    topic: str,
    *,
    timestamp: str = "timestamp_ms",
    types: Mapping[str, type] | None = None,
    partitioned_by: tuple[str, ...] | None = None,
) -> Stream:
    """Begin a pipeline that reads a topic of JSON objects.

    Parameters
    ----------
    topic : str
        Without the namespace.
    timestamp : str
        The field that holds the event time, ms since the Unix epoch, UTC.
    types : mapping of str to type
        Fields and what they must be: str, int, float, bool, list or dict. A record where one is missing or of
        another type goes to `<topic>.dlq`. Those of `readings` are known.
    partitioned_by : tuple of str
        The fields that the topic's producers key it by, which decide a record's partition. Those of `readings` are
        known: `("device_id",)`.

    Returns
    -------
    Stream

    Raises
    ------
    WindowError
        If a name is no topic's or one of the system's own, or a type is none of those.

    Examples
    --------
    >>> from easyremote.windows import Mean, Tumbling
    >>> pipeline = (
    ...     stream("readings")
    ...     .key_by("device_id", "metric")
    ...     .window(Tumbling("10s"), lateness="60s")
    ...     .aggregate(mean=Mean("value"))
    ...     .to("means", register=False)
    ... )
    >>> pipeline.name
    'readings.means'
    """
    check_source(topic)
    if topic == "readings":
        types = {**READINGS_TYPES, **(types or {})}
        partitioned_by = partitioned_by or ("device_id",)
    for name, kind in (types or {}).items():
        if kind not in _TYPES:
            raise WindowError(
                f"field {name!r} is of type {kind!r}, which JSON has not: use one of "
                f"{', '.join(known.__name__ for known in _TYPES)}"
            )
    return Stream(topic, timestamp, types or {}, partitioned_by)


@dataclass(frozen=True)
class Stream:
    """Records of a topic, on their way."""

    topic: str
    timestamp: str
    types: Mapping[str, type]
    partitioned_by: tuple[str, ...] | None
    steps: tuple[Step, ...] = ()
    needed: Mapping[str, type] = field(default_factory=dict)
    """What a detector looks at, as the functions leave it."""

    def map(self, function: Callable[[Record], Record]) -> Stream:
        """Do something with each record: a dict in, a dict out.

        A record on which it raises, or gives no dict, goes to `<topic>.dlq`; `filter` is how records are dropped. Types
        are checked before it.
        """
        return self._then(OfEach("map", _function("map", function)))

    def filter(self, function: Callable[[Record], bool]) -> Stream:
        """Go on with the records of which a function says so; one on which it raises goes to `<topic>.dlq`."""
        return self._then(OfEach("filter", _function("filter", function)))

    def map_batches(self, function: Step) -> Stream:
        """Do something with many records at once, such as one call of a model or of numpy.

        Parameters
        ----------
        function : callable
            `(records) -> records`: a list of dicts in the order of the log in; one for each out, None to drop it.
            How many come together is by chance. Where it raises it is called again with halves of them, read anew, and
            the records with which it does alone go to `<topic>.dlq`.
        """
        return self._then(_function("map_batches", function))

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the records to another topic, by the keys that they have; see `Aggregated.to`."""
        return pipeline_of((self.read_by(()),), Passing(), topic, name, register=register)

    def type_of(self, name: str) -> type | None:
        """Return a field's type where it is known; after a function nothing is."""
        return None if self.steps else self.types.get(name)

    def _then(self, step: Step) -> Stream:
        return replace(self, steps=(*self.steps, step))

    def read_by(self, key: tuple[str, ...]) -> Source:
        """Return what is read, by fields."""
        return Source(self.topic, self.timestamp, self.types, self.steps, key, self.needed)

    def key_by(self, *fields: str) -> Keyed:
        """Group records by the values of fields.

        Raises
        ------
        WindowError
            If there is none, or one is named twice.
        """
        if not fields:
            raise WindowError("key_by() needs at least one field, such as key_by('device_id')")
        if self.timestamp in fields or len(set(fields)) < len(fields):
            raise WindowError(f"key_by{fields} names a field twice, or the time itself")
        return Keyed(self, fields)


def _function(what: str, function: F) -> F:
    if not callable(function):
        raise WindowError(f"{what}() needs a function, and got {function!r}")
    return function


def _check_detector(detector: Detector) -> None:
    try:
        known = (str(detector.kind), float(detector.threshold), np.dtype(detector.dtype))
    except Exception as error:  # whatever a user's class raises
        raise WindowError(
            f"{detector!r} is no detector ({error}): it needs kind (a text), threshold (a number) and dtype (of numpy)"
        ) from error
    if known[2].hasobject or not math.isfinite(known[1]):
        raise WindowError(f"{detector!r} needs a finite threshold and a dtype of numbers: its state is kept as bytes")


@dataclass(frozen=True)
class Keyed:
    """Records by their key."""

    source: Stream
    key: tuple[str, ...]

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the records to another topic by this key, so that whoever reads it has those of a key together.

        It is how a topic that is partitioned by something else is made ready for windows. See `Aggregated.to`.
        """
        return pipeline_of((self.source.read_by(self.key),), Passing(), topic, name, register=register)

    def window(
        self,
        windows: Assigner,
        *,
        lateness: Duration = 0,
        idle: Duration = "30s",
        watermark: Literal["key", "partition"] = "key",
        emit: Emission = "close",
    ) -> Windows:
        """Cut each key's records into windows.

        Parameters
        ----------
        windows : Tumbling, Hopping, Sliding, Session or CountWindow
            Which.
        lateness, idle, watermark
            When one may be closed: see `EventTime`.
        emit : {"close", "update", "both"}
            When results are told.

        Raises
        ------
        WindowError
            If it is none, one that is known only when it closes is to be told on update, or records of one key may be
            on different partitions, and so with different workers.
        """
        self.check_partitioning()
        if not isinstance(windows, Hopping | Sliding | Session | CountWindow):
            raise WindowError(
                f"{windows!r} is no window: use Tumbling('10s'), Hopping, Sliding, Session or CountWindow of "
                "easyremote.windows"
            )
        event_time = EventTime(lateness, idle, watermark)
        Windowed(windows, {}, event_time, emit)  # which says what is wrong
        return Windows(self.source.read_by(self.key), windows, event_time, emit)

    def join(
        self,
        other: Keyed,
        within: Duration | tuple[Duration, Duration],
        *,
        how: How = "inner",
        event_time: EventTime | None = None,
    ) -> Joined:
        """Join with records of another topic of the same key whose event times are near.

        A result is `{"stream_a", "stream_b", "join_key", "join_value"}`.

        Parameters
        ----------
        other : Keyed
            `stream(...).key_by(...)`: as many fields, and as many partitions.
        within : str, int (ms), timedelta, or a pair of them
            How far its time may be from this one's; a pair: how far before it, and after it.
        how : {"inner", "left", "outer"}
            Which records are told that have no match: none, this stream's, both's.
        event_time : EventTime, optional
            Lateness and idle time of both; unset: no lateness, one watermark for a partition. With the watermark by key
            the state of a key that comes once stays until it was silent for the idle time.

        Raises
        ------
        WindowError
            If the keys do not fit, or records of one key may be with different workers.
        """
        before, after = within if isinstance(within, tuple) else (within, within)
        IntervalJoin(before, after, how, event_time)  # which says what is wrong
        told = f"{how}, {before} before to {after} after"
        return self._joined(other, lambda: IntervalJoin(before, after, how, event_time), ("join", told))

    def join_latest(
        self,
        other: Keyed,
        *,
        tolerance: Duration | None = None,
        how: Literal["inner", "left"] = "inner",
        event_time: EventTime | None = None,
    ) -> Joined:
        """Join each record with the latest of another topic of the same key that is not after it.

        Without a tolerance the other topic is a table, whose rows are the latest records of each key; with one it is an
        as-of join. A record waits until the other topic's watermark has passed it, or that topic has been silent for
        the idle time.

        Parameters
        ----------
        other : Keyed
            `stream(...).key_by(...)`: as many fields, and as many partitions.
        tolerance : str, int (ms) or timedelta, optional
            How old the other record may be; unset: any age.
        how : {"inner", "left"}
            Whether a record without a match is told.
        event_time : EventTime, optional
            As in `join`.

        Raises
        ------
        WindowError
            As in `join`.
        """
        AsOfJoin(tolerance, how, event_time)
        told = f"{how}, the latest" if tolerance is None else f"{how}, the latest of the {tolerance} before"
        return self._joined(other, lambda: AsOfJoin(tolerance, how, event_time), ("join", told))

    def detect(
        self, detector: Detector, column: str = "value", *, rule: AlertRule | None = None, per_day: float | None = None
    ) -> Detected:
        """Look for anomalies in a field of each key's records, in the order of the log.

        An alert is `{"id", "kind", "phase", <key>, "timestamp_ms", "opened_ms", "value", "expected", "score",
        "worst_score", "threshold", "message", "records"}`; `phase` is `opened`, `updated` while it gets worse, or
        `closed`, of one `id`, which is the same after a replay.

        Parameters
        ----------
        detector : Detector
            Such as `Unusual()`, `ZScore(threshold=3)`, `Robust()`, `Seasonal()`, `Cusum()`, `FlatLine()` or `Missing()`
            of `easyremote.windows.detectors`.
        column : str
            A number. A record without it goes to `<topic>.dlq`.
        rule : AlertRule, optional
            What becomes an alert: cooldown, hysteresis, how a series that cries wolf is listened to less.
        per_day : float, optional
            An alert budget in place of the detector's threshold: about so many a day of each key.

        Raises
        ------
        WindowError
            If it is no detector, the field is of another type, or records of one key may be with different workers.
        """
        if isinstance(detector, type) or not hasattr(detector, "score"):
            raise WindowError(f"{detector!r} is no detector: use Unusual(), ZScore(threshold=3) and its like")
        _check_detector(detector)
        kind = float if self.source.steps else self.source.types.get(column, float)
        if kind not in {int, float}:
            raise WindowError(f"{column!r} is of type {kind.__name__} and no number: look at another field")
        self.check_partitioning()
        typed = replace(self.source, needed={column: kind})
        known = rule or AlertRule()
        known = known if per_day is None else replace(known, per_day=per_day)
        return Detected(typed.read_by(self.key), Detection(detector, known, column))

    def _joined(self, other: Keyed, make: Callable[[], Join], told: tuple[str, str]) -> Joined:
        if not isinstance(other, Keyed):
            raise WindowError(f"{other!r} has no key: join with stream(...).key_by(...)")
        if other.source.topic == self.source.topic:
            raise WindowError(
                f"{self.source.topic!r} cannot be joined with itself: send one side to another topic first"
            )
        if len(other.key) != len(self.key):
            raise WindowError(f"{self.key} and {other.key} are keys of different lengths: name as many fields of both")
        for mine, theirs in zip(self.key, other.key, strict=True):
            kinds = (self.source.type_of(mine), other.source.type_of(theirs))
            if None not in kinds and kinds[0] is not kinds[1]:
                raise WindowError(f"{mine!r} and {theirs!r} are of different types and never equal: map one of them")
        for keyed in (self, other):
            keyed.check_partitioning()
        return Joined((self.source.read_by(self.key), other.source.read_by(other.key)), Joining(make, told))

    def check_partitioning(self) -> None:
        """Raise a WindowError if records of one key may be with different workers."""
        topic, by = self.source.topic, self.source.partitioned_by
        if by is None:
            raise WindowError(
                f"by which fields {topic!r} is partitioned is not known: say stream({topic!r}, partitioned_by=(...)) "
                "with the fields that its producers key it by"
            )
        missing = [name for name in by if name not in self.key]
        if missing:
            raise WindowError(
                f"{topic!r} is partitioned by {missing[0]!r}, which is not among {self.key}: records of one key would "
                f"be with different workers. Add {missing[0]!r} to key_by(), or first send them to a topic by that "
                f"key, .key_by{self.key}.to('{topic}-by-{self.key[0]}'), and read that one"
            )
