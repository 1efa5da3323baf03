"""What a pipeline does with its rows: pass them on, put them in windows, join them; each stage has a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import msgspec

from easyremote.pipelines.encoding import encoded_as_json
from easyremote.windows import EventTime, Join, JoinResult, Late, Rows, WindowResults
from easyremote.windows.aggregates import Aggregate
from easyremote.windows.assigners import Assigner
from easyremote.windows.guarding import Failed, FailedWindow, Raised, calling
from easyremote.windows.joining import JOINED
from easyremote.windows.resting import Resting
from easyremote.windows.watermarks import Heard
from easyremote.windows.windowed import Emission, Windowed

__all__ = ["Joining", "LostWindow", "Origin", "Passing", "Result", "Stage", "StageKernel", "Told", "Windowing"]


Key = tuple[Any, ...]
Changes = list[tuple[bytes, bytes | None]]


class Origin(NamedTuple):
    """Where a kernel's rows come from: full name of the first source's topic, and the partition."""

    topic: str
    partition: int


class Result(msgspec.Struct, frozen=True, gc=False):
    """A record for the sink: whose it is, and the message of the batch that it came from, where it is that of one."""

    key: Key
    record: bytes | dict[str, Any]
    """Bytes of JSON, or what is to become them. Any: whatever JSON holds."""
    place: int | None = None


class LostWindow(NamedTuple):
    """A window without a result: whose it is, why, and what is known of it, as JSON."""

    key: Key
    stage: str
    error: BaseException
    known: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What a batch led to."""

    results: list[Result]
    late: list[Late] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    """Records on which a user's code raised."""
    windows: list[LostWindow] = field(default_factory=list)
    """Windows of which it made no result."""


class StageKernel(Protocol):
    """The arithmetic of a stage on one partition: no clock, no I/O."""

    def step(self, side: int, rows: Rows, now_ms: int) -> Told:
        """Take rows of one of the sources in."""
        ...

    def close_idle(self, now_ms: int, heard: Sequence[Heard] | None = None) -> Told:
        """Return what silence leads to; `heard` is how long each source was listened to, unset: until now."""
        ...

    def changes(self) -> Changes:
        """Return key and content of the state that has changed; None: it is forgotten."""
        ...

    def restore(self, key: bytes, content: bytes) -> None:
        """Put back what `changes` gave."""
        ...

    @property
    def resting(self) -> Resting | None:
        """What moves keys out of memory and back; None: no state is kept."""
        ...


class Stage(Protocol):
    """What is asked for."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields that it reads, `JOINED` for the records themselves."""
        ...

    @property
    def has_state(self) -> bool:
        """Whether records of one key must be on one partition, and bear a time."""
        ...

    def kernel(self, key: tuple[str, ...], origin: Origin) -> StageKernel:
        """Return its arithmetic for one partition, grouped by fields."""
        ...

    def described(self) -> list[tuple[str, str]]:
        """Return what it does, and how, for people."""
        ...


@dataclass(frozen=True)
class Passing:
    """Records go on as they are, by another key where one is given."""

    columns: tuple[str, ...] = (JOINED,)
    has_state: bool = False

    def kernel(self, key: tuple[str, ...], origin: Origin) -> _PassingKernel:
        """Return what passes records on."""
        return _PassingKernel()

    def described(self) -> list[tuple[str, str]]:
        """Return nothing: records pass."""
        return []


class _PassingKernel:
    resting = None

    def step(self, side: int, rows: Rows, now_ms: int) -> Told:
        records = rows.columns[JOINED].tolist()
        pairs = enumerate(zip(rows.keys, records, strict=True))
        return Told([Result(key, record, place) for place, (key, record) in pairs])

    def close_idle(self, now_ms: int, heard: Sequence[Heard] | None = None) -> Told:
        return Told([])

    def changes(self) -> Changes:
        return []

    def restore(self, key: bytes, content: bytes) -> None:
        raise ValueError(f"no state is kept, and {key!r} has {len(content)} bytes of it")


@dataclass(frozen=True)
class Windowing:
    """Records are put together by windows, and aggregated.

    Parameters
    ----------
    windows : Tumbling, Hopping, Sliding, Session or CountWindow
        How a key's records are put together.
    aggregates : mapping of str to Aggregate
        By the name of their result.
    event_time : EventTime
        Lateness, idle time, watermark.
    emission : {"close", "update", "both"}
        When results are told.
    """

    windows: Assigner
    aggregates: Mapping[str, Aggregate]
    event_time: EventTime
    emission: Emission
    has_state: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields that are aggregated."""
        states = [aggregate.state for aggregate in self.aggregates.values()]
        return tuple(dict.fromkeys(name for state in states if (name := state.column) is not None))

    def kernel(self, key: tuple[str, ...], origin: Origin) -> _WindowingKernel:
        """Return the windows of one partition."""
        return _WindowingKernel(key, Windowed(self.windows, self.aggregates, self.event_time, self.emission))

    def described(self) -> list[tuple[str, str]]:
        """Return windows and aggregates."""
        time = self.event_time
        told = f"{self.windows}, lateness {time.lateness_ms} ms, idle after {time.idle_ms} ms, told on {self.emission}"
        return [
            ("window", told),
            ("watermark", f"of each {time.watermark}"),
            ("aggregate", ", ".join(f"{name}={one}" for name, one in self.aggregates.items())),
        ]


class _WindowingKernel:
    def __init__(self, key: tuple[str, ...], windowed: Windowed) -> None:
        self._names = names = (*key, "window_start", "window_end", *windowed.names, "revision", "final")
        # Names may be no Python names, or a struct's own: so each has a number.
        renamed = {f"f{number}": name for number, name in enumerate(names)}
        self._record = msgspec.defstruct("Result", list(renamed), rename=renamed, gc=False)
        self._key_fields = len(key)
        self._encode = msgspec.json.Encoder().encode
        self._windowed = windowed
        self.resting = windowed.resting

    def step(self, side: int, rows: Rows, now_ms: int) -> Told:
        effects = self._windowed.step(rows, now_ms)
        results, lost = self._records(effects.results)
        return Told(results, effects.late, effects.failed, lost)

    def close_idle(self, now_ms: int, heard: Sequence[Heard] | None = None) -> Told:
        results, lost = self._records(self._windowed.close_idle(now_ms, None if heard is None else heard[0]))
        return Told(results, windows=lost)

    def changes(self) -> Changes:
        return self._windowed.changes()

    def restore(self, key: bytes, content: bytes) -> None:
        self._windowed.restore(key, content)

    def _records(self, told: WindowResults) -> tuple[list[Result], list[LostWindow]]:
        lost = [self._lost(one) for one in told.failed]
        if not len(told):
            return [], lost
        keys = [map(itemgetter(number), told.keys) for number in range(self._key_fields)]
        records = map(self._record, *keys, told.start, told.end, *told.values.values(), told.revision, told.final)
        if not self._windowed.names_of_a_user:
            return list(map(Result, told.keys, map(self._encode, records))), lost
        results = []
        for number, (key, record) in enumerate(zip(told.keys, records, strict=True)):
            try:
                results.append(Result(key, self._checked(number, told, record)))
            except Raised as raised:
                (failed,) = told.without({number: raised}).failed[-1:]
                lost.append(self._lost(failed))
        return results, lost

    def _checked(self, number: int, told: WindowResults, record: Any) -> bytes:  # Any: a struct made at run time
        for name in self._windowed.names_of_a_user:
            with calling(f"aggregate {name}"):
                encoded_as_json(told.values[name][number], f"the result of {name}")
        return self._encode(record)

    def _lost(self, window: FailedWindow) -> LostWindow:
        bounds = {"window_start": window.start, "window_end": window.end}
        known = dict(zip(self._names, window.key, strict=False)) | bounds
        for name, value in window.values.items():
            try:
                known[name] = msgspec.Raw(encoded_as_json(value, name))
            except Exception:  # noqa: BLE001, S112  # what it is that cannot be told is what the letter's reason says
                continue
        known |= {"revision": window.revision, "final": window.final}
        return LostWindow(window.key, window.stage, window.error, self._encode(known))


@dataclass(frozen=True)
class Joining:
    """Records of two topics are put together by their key and time.

    Parameters
    ----------
    make : callable
        `() -> Join`: the kernel, for one partition.
    told : tuple of (str, str)
        What it does, and how, for people.
    """

    make: Callable[[], Join]
    told: tuple[str, str]
    columns: tuple[str, ...] = (JOINED,)
    has_state: bool = True

    def kernel(self, key: tuple[str, ...], origin: Origin) -> _JoiningKernel:
        """Return the join of one partition."""
        return _JoiningKernel(key, self.make())

    def described(self) -> list[tuple[str, str]]:
        """Return the kind of join."""
        return [self.told]


class _JoiningKernel:
    def __init__(self, key: tuple[str, ...], join: Join) -> None:
        self._key = key[0] if len(key) == 1 else list(key)
        self._join = join
        self.resting = join.resting

    def step(self, side: int, rows: Rows, now_ms: int) -> Told:
        effects = self._join.step(side, rows, now_ms)
        return Told(self._records(effects.results), effects.late)

    def close_idle(self, now_ms: int, heard: Sequence[Heard] | None = None) -> Told:
        return Told(self._records(self._join.close_idle(now_ms, heard)))

    def changes(self) -> Changes:
        return self._join.changes()

    def restore(self, key: bytes, content: bytes) -> None:
        self._join.restore(key, content)

    def _records(self, results: Iterable[JoinResult]) -> list[Result]:
        return [
            Result(
                one.key,
                {
                    "stream_a": None if one.left is None else msgspec.Raw(one.left),
                    "stream_b": None if one.right is None else msgspec.Raw(one.right),
                    "join_key": self._key,
                    "join_value": one.key[0] if len(one.key) == 1 else one.key,
                },
            )
            for one in results
        ]
