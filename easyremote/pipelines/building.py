"""How a pipeline is written: `stream(...).key_by(...).window(...).aggregate(...).to(...)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from easyremote.errors import WindowError
from easyremote.pipelines.pipeline import Pipeline, Record, Source, Step
from easyremote.pipelines.stages import Passing, Stage, Windowing
from easyremote.windows.aggregates import Aggregate
from easyremote.windows.assigners import Assigner, CountWindow, EventTime, Hopping, Session, Sliding
from easyremote.windows.durations import Duration
from easyremote.windows.windowed import Emission, Windowed

__all__ = ["Stream", "registered", "stream"]

registered: dict[str, Pipeline] = {}
"""The pipelines of this process, by name: what a worker of the role `streams` runs."""

READINGS_TYPES: Mapping[str, type] = {"device_id": str, "metric": str, "value": float}
_TYPES = (str, int, float, bool, list, dict)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
_OWN = frozenset({"window_start", "window_end", "revision", "final"})


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
        If a name is no topic's, or a type is none of those.

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
    _check_topic(topic)
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


def _check_topic(name: str) -> None:
    if not _TOPIC.fullmatch(name):
        raise WindowError(f"{name!r} is no topic: use letters, digits, '.', '_' and '-', at most 200")


@dataclass(frozen=True)
class Stream:
    """Records of a topic, on their way."""

    topic: str
    timestamp: str
    types: Mapping[str, type]
    partitioned_by: tuple[str, ...] | None
    steps: tuple[Step, ...] = ()

    def map(self, function: Callable[[Record], Record]) -> Stream:
        """Do something with each record: a dict in, a dict out. What it raises sends the record to `<topic>.dlq`."""
        return self.map_batches(lambda records: [function(record) for record in records])

    def filter(self, function: Callable[[Record], bool]) -> Stream:
        """Go on with the records of which a function says so."""
        return self.map_batches(lambda records: [record if function(record) else None for record in records])

    def map_batches(self, function: Step) -> Stream:
        """Do something with many records at once, such as one call of a model or of numpy.

        Parameters
        ----------
        function : callable
            `(records) -> records`: a list of dicts in the order of the log in; one for each out, None to drop it.
            How many come together is by chance. Where it raises it is called again with each record alone, and those
            with which it still does go to `<topic>.dlq`.
        """
        return replace(self, steps=(*self.steps, function))

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the records to another topic, by the keys that they have; see `Aggregated.to`."""
        return _pipeline((self,), (), Passing(), topic, name, register=register)

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


@dataclass(frozen=True)
class Keyed:
    """Records by their key."""

    source: Stream
    key: tuple[str, ...]

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the records to another topic by this key, so that whoever reads it has those of a key together.

        It is how a topic that is partitioned by something else is made ready for windows. See `Aggregated.to`.
        """
        return _pipeline((self.source,), self.key, Passing(), topic, name, register=register)

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
        return Windows(self, windows, event_time, emit)

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


@dataclass(frozen=True)
class Windows:
    """Records by key and window."""

    keyed: Keyed
    windows: Assigner
    event_time: EventTime
    emission: Emission

    def aggregate(self, **aggregates: Aggregate) -> Aggregated:
        """Say what is told of each window, by the name of the result's field.

        Raises
        ------
        WindowError
            If one is no aggregate, reads a field of a type that it cannot use, or its name is taken.
        """
        if not aggregates:
            raise WindowError("aggregate() needs at least one, such as aggregate(mean=Mean('value'))")
        for name, one in aggregates.items():
            if not hasattr(one, "state") or isinstance(one, type):
                raise WindowError(f"{name}={one!r} is no aggregate: use Mean('value') and its like")
            if name in _OWN or name in self.keyed.key:
                raise WindowError(f"a result has {name!r} already: give the aggregate another name")
            self._check_type(name, one)
        return Aggregated(self, aggregates)

    def _check_type(self, name: str, aggregate: Aggregate) -> None:
        column = aggregate.state.column
        kind = self.keyed.source.types.get(column or "")
        if type(aggregate).__module__.endswith(".custom") or kind is None:
            return
        if kind not in {int, float}:
            raise WindowError(
                f"{name} reads {column!r}, which is of type {kind.__name__} and no number: use TypeDistribution or "
                "Custom, or another field"
            )


@dataclass(frozen=True)
class Aggregated:
    """Results, which want to go somewhere."""

    of: Windows
    aggregates: Mapping[str, Aggregate]

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the results to a topic; a worker of the role `streams` runs it from now on.

        Parameters
        ----------
        topic : str
            Without the namespace; it is made with the source's number of partitions if it is not there.
        name : str, optional
            Of the pipeline; unset: the names of both topics.
        register : bool
            False: it is only described, for a test or a replay.

        Raises
        ------
        WindowError
            If the topic is the source, or another pipeline has the name.
        """
        of = self.of
        stage = Windowing(of.windows, self.aggregates, of.event_time, of.emission)
        return _pipeline((of.keyed.source,), of.keyed.key, stage, topic, name, register=register)


def _pipeline(  # what a pipeline is, and what is done with it
    streams: Sequence[Stream], key: tuple[str, ...], stage: Stage, topic: str, name: str | None, *, register: bool
) -> Pipeline:
    _check_topic(topic)
    sources = tuple(Source(one.topic, one.timestamp, one.types, one.steps) for one in streams)
    if topic in {one.topic for one in sources}:
        raise WindowError(f"a pipeline from {topic!r} to itself would never end: choose another topic")
    name = name or f"{'-'.join(one.topic for one in sources)}.{topic}"
    _check_topic(name)
    pipeline = Pipeline(name=name, sources=sources, sink=topic, key=key, stage=stage)
    if register:
        if pipeline.name in registered:
            raise WindowError(f"there is a pipeline {pipeline.name!r} already: say .to({topic!r}, name='another')")
        registered[pipeline.name] = pipeline
    return pipeline
