"""The kernel of a windowed aggregation over one partition: rows in; results, late records and changed state out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.assigners import Assigner, EventTime, Hopping, Session, Sliding
from easyremote.windows.buffers import Counted, Slid
from easyremote.windows.guarding import Failed, Guarded, Raised, calling, is_of_a_user
from easyremote.windows.keys import Keys, of_another_form
from easyremote.windows.panes import Panes
from easyremote.windows.resting import NEVER, Resting
from easyremote.windows.rows import MISSING, Closed, Key, Late, Rows, WindowResults
from easyremote.windows.sessions import Sessions
from easyremote.windows.watermarks import FUTURE_MS, Heard, Watermarks

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregate, Aggregator

__all__ = ["Emission", "Windowed", "WindowedEffects"]

Ints = npt.NDArray[np.int64]
Emission = Literal["close", "update", "both"]
"""When a window's result is told: once it is closed, after each batch that changes it, or both."""

_FORGET_MS = 7 * 24 * 3_600_000
"""A key of which nothing is open is forgotten after so long, with its watermark."""
_FORGET_EACH_MS = 3_600_000
_FORMAT = 1
_Content = tuple[Literal[1], bytes, Any, list[tuple[int, int]]]
"""Form, watermark, what is open, revisions. Any: each kind of window has its own."""
_MARK = b"watermark"
"""Key in the changelog of a partition's watermark; a stream's key is a JSON array."""


@dataclass(frozen=True, slots=True)
class WindowedEffects:
    """What a step led to."""

    results: WindowResults
    late: list[Late]
    failed: list[Failed] = field(default_factory=list)
    """Records on which a user's code raised; nothing else knows of them."""

    def followed_by(self, more: WindowedEffects) -> WindowedEffects:
        """Return these and then others of the same windows."""
        results = self.results.followed_by(more.results)
        return WindowedEffects(results, self.late + more.late, self.failed + more.failed)


class Windowed:
    """Windows and their aggregates for every key of one partition.

    Final results depend on the log alone: not on how it is cut into batches, nor on when a window is closed.

    Parameters
    ----------
    windows : Tumbling, Hopping, Sliding, Session or CountWindow
        How a key's records are put together.
    aggregates : mapping of str to Aggregate
        By the name of their result; those of equal state share it.
    event_time : EventTime
        Lateness, idle time, whose watermark.
    emission : {"close", "update", "both"}
        When results are told.

    Raises
    ------
    WindowError
        If windows that are known only when they close should be told on update.
    """

    def __init__(
        self,
        windows: Assigner,
        aggregates: Mapping[str, Aggregate],
        event_time: EventTime | None = None,
        emission: Emission = "close",
    ) -> None:
        if emission not in get_args(Emission):
            told = ", ".join(map(repr, get_args(Emission)))
            raise WindowError(f"emit={emission!r}: results are told on one of {told}")
        if emission != "close" and not isinstance(windows, Hopping):
            raise WindowError(
                f"{type(windows).__name__} windows are known only when they close: use emission='close', "
                "or tumbling or hopping windows"
            )
        shared = {name: aggregate.state for name, aggregate in aggregates.items()}
        states = list(dict.fromkeys(shared.values()))
        self._read = [
            _Reading(name, one, states.index(shared[name]), is_of_a_user(one)) for name, one in aggregates.items()
        ]
        guarded = [_guarded(state, [name for name, its in shared.items() if its == state]) for state in states]
        self._of_a_user = [one for one in guarded if isinstance(one, Guarded)]
        self._emission = emission
        self._watermarks = Watermarks(event_time or EventTime())
        self._state = _state_of(windows, guarded)
        self._revisions: dict[tuple[int, int], int] = {}
        """How often the window of a series that ends then was told."""
        self._keys = Keys(self._watermarks)
        self._changed: set[int] = set()
        self._gone: list[Key] = []
        self._forget_at_ms = 0
        self.resting = Resting(self._keys, self.restore, self._let_go)

    @property
    def names(self) -> tuple[str, ...]:
        """What is told of each window, in the order of the results' values."""
        return tuple(one.name for one in self._read)

    @property
    def names_of_a_user(self) -> frozenset[str]:
        """Those of `names` whose values a user's code makes."""
        return frozenset(one.name for one in self._read if one.is_of_a_user)

    @property
    def keys(self) -> int:
        """How many keys it knows."""
        return len(self._keys)

    def step(self, rows: Rows, now_ms: int) -> WindowedEffects:
        """Take a batch in; a record on which a user's code raises is as if it had not come.

        Parameters
        ----------
        rows : Rows
            At least one, in the order of the log.
        now_ms : int
            The wall clock, ms.
        """
        if not self._of_a_user:
            return self._taken(rows, now_ms)
        places = np.arange(len(rows.event_ms))
        if isinstance(self._state, Panes | Sessions):
            return self._tried(rows, places, now_ms)
        # What a record is added to is known only when its window closes: so each is tried by itself before it is kept.
        failed = self._failing_alone(rows)
        good = np.setdiff1d(places, [one.place for one in failed])
        effects = self._tried(rows.chosen(good), good, now_ms) if len(good) else WindowedEffects(WindowResults(), [])
        return replace(effects, failed=failed)

    def _tried(self, rows: Rows, places: Ints, now_ms: int) -> WindowedEffects:
        """Take rows in at once; where a user's code raises, without those on which it does, found by halves."""
        try:
            effects = self._taken(rows, now_ms)
        except Raised as raised:
            count = len(places)
            if count == 1:
                failed = Failed(int(places[0]), raised.stage, raised.error)
                return WindowedEffects(WindowResults(), [], [failed])
            alone = self._failing_alone(rows)
            bad = [one.place for one in alone]
            good = np.setdiff1d(np.arange(count), bad)
            # Where each is well by itself, it depends on what it is added to: first the ones before, then the others.
            parts = [good] if bad else [good[: count // 2], good[count // 2 :]]
            effects = WindowedEffects(
                WindowResults(), [], [one._replace(place=int(places[one.place])) for one in alone]
            )
            for part in parts:
                if len(part):
                    effects = effects.followed_by(self._tried(rows.chosen(part), places[part], now_ms))
            return effects
        return replace(effects, late=[replace(one, place=int(places[one.place])) for one in effects.late])

    def _failing_alone(self, rows: Rows) -> list[Failed]:
        """Return the rows on which a user's code raises whatever they are added to."""
        failed, first = [], np.zeros(1, np.int64)
        columns = [
            (one, np.arange(len(rows.event_ms)) if one.column is None else rows.columns[one.column])
            for one in self._of_a_user
        ]
        for place in range(len(rows.event_ms)):
            try:
                for aggregate, column in columns:
                    aggregate.of_groups(column[place : place + 1], first)
            except Raised as raised:
                failed.append(Failed(place, raised.stage, raised.error))
        return failed

    def _taken(self, rows: Rows, now_ms: int) -> WindowedEffects:
        late: list[Late] = []
        taken = np.arange(len(rows.event_ms))
        if int(rows.event_ms.max()) - now_ms > FUTURE_MS:
            ahead = rows.event_ms - now_ms
            future = np.flatnonzero(ahead > FUTURE_MS)
            late += self._told_late(future, rows.event_ms, ahead[future], "future")
            taken = np.flatnonzero(ahead <= FUTURE_MS)
            if not len(taken):
                return WindowedEffects(WindowResults(), late)
            rows = rows.chosen(taken)
        every = series = self._keys.numbers(rows.keys)
        before = self._watermarks.held(series) if self._of_a_user else None
        lateness = self._state.lateness(rows.event_ms, self._watermarks.advance(series, rows.event_ms, now_ms))
        self._changed.update(series.tolist())
        if int(lateness.max()) >= 0:
            behind = np.flatnonzero(lateness >= 0)
            told = self._told_late(behind, rows.event_ms, lateness[behind], "late")
            late += [replace(one, place=int(taken[one.place])) for one in told]
            in_time = np.flatnonzero(lateness < 0)
            rows, series = rows.chosen(in_time), series[in_time]
        if len(series):
            try:
                self._state.add(series, rows.event_ms, rows.offsets, rows.columns)
            except Raised:
                assert before is not None, "only a user's code raises"
                self._watermarks.put_back(before)
                for number in np.unique(self._watermarks.unheard(every)).tolist():
                    self._keys.drop(number)
                    self._changed.discard(number)
                raise
        if not self._watermarks.by_key:
            self.resting.wake(self._watermarks.limit())
        return WindowedEffects(self._results(), late)

    def close_idle(self, now_ms: int, heard: Heard | None = None) -> WindowResults:
        """Close the windows of keys, or of the partition, that are silent; forget keys silent for a week.

        Parameters
        ----------
        now_ms : int
            The wall clock, ms.
        heard : tuple of (int, int), optional
            How long the partition was listened to; unset: without a break, until now.
        """
        listened_ms = self._watermarks.listened(now_ms, heard)
        self.resting.wake(self._wakes_at(listened_ms))
        series, ends = self._state.open_ends()
        silent = self._watermarks.silent(series, listened_ms)
        if silent.any():
            self._watermarks.close_up_to(series[silent], ends[silent])
            self._changed.update(series[silent].tolist())
        results = self._closed() if silent.any() else WindowResults()
        self._forget(listened_ms)
        return results

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return key and content of everything that changed since the last time; None: forgotten."""
        changes: list[tuple[bytes, bytes | None]] = [(msgspec.json.encode(key), None) for key in self._gone]
        changed = np.array(sorted(self._changed), np.int64)
        by_key = self._watermarks.by_key
        if len(changed) and not by_key:
            changes.append((_MARK, self._watermarks.pack()))
        for number, content in self._contents(changed):
            key = self._keys[number] if content else self._keys.drop(number)
            changes.append((msgspec.json.encode(key), content))
        self._changed.clear()
        self._gone.clear()
        return changes

    def restore(self, key: bytes, content: bytes) -> None:
        """Put back what `changes` gave.

        Raises
        ------
        WindowError
            If it was not made by this version of this class and these windows and aggregates.
        """
        if key == _MARK:
            self._watermarks.restore(content)
            return
        try:
            _, mark, held, told = msgspec.msgpack.decode(content, type=_Content)
            (number,) = self._keys.numbers([tuple(msgspec.json.decode(key, type=list[Any]))]).tolist()
            self._state.restore(number, held)
        except (ValueError, TypeError, IndexError, WindowError) as error:
            raise of_another_form(key, str(error)) from error
        if self._watermarks.by_key:
            self._watermarks.restore(mark, number)
        self._revisions.update({(number, end): revision for end, revision in told})

    def _let_go(self, numbers: Ints, now_ms: int) -> tuple[list[bytes], Ints]:
        wakes = self._state.wakes(numbers)
        if self._watermarks.by_key:
            is_open, seen = np.isin(numbers, self._state.open_ends()[0]), self._watermarks.seen_ms(numbers)
            wakes = np.where(is_open, self._watermarks.silent_at(numbers, now_ms), seen + _FORGET_MS)
        contents = [content or b"" for _, content in self._contents(numbers)]
        gone = set(numbers.tolist())
        self._revisions = {window: told for window, told in self._revisions.items() if window[0] not in gone}
        self._state.drop(numbers)
        return contents, wakes

    def _contents(self, numbers: Ints) -> Iterator[tuple[int, bytes | None]]:
        """Yield the state of some series; None of one that has none that would have to be kept."""
        told: dict[int, list[tuple[int, int]]] = {}
        for (series, end), revision in self._revisions.items():
            told.setdefault(series, []).append((end, revision))
        by_key = self._watermarks.by_key
        for number, held in zip(numbers.tolist(), self._state.pack(numbers), strict=True):
            mark = self._watermarks.pack(number) if by_key else b""
            kept = held or by_key
            yield number, msgspec.msgpack.encode([_FORMAT, mark, held, told.get(number, [])]) if kept else None

    def _wakes_at(self, listened_ms: int) -> int:
        if self._watermarks.by_key:
            return listened_ms
        is_silent = bool(self._watermarks.silent(np.zeros(1, np.int64), listened_ms)[0])
        return NEVER - 1 if is_silent else self._watermarks.limit()

    def _results(self) -> WindowResults:
        # Windows that close at once are told as closed, not as changed before.
        closed = self._closed()
        if self._emission == "close":
            return closed
        assert isinstance(self._state, Panes)
        return self._told(self._state.updated(), final=False).followed_by(closed)

    def _closed(self) -> WindowResults:
        def is_due(series: Ints, end: Ints) -> npt.NDArray[np.bool_]:
            due: npt.NDArray[np.bool_] = end <= self._watermarks.limits(series)
            return due

        closed = self._state.due(is_due)
        self._changed.update(closed.series.tolist(), closed.let_go)
        told = self._told(closed, final=True)
        return WindowResults() if self._emission == "update" else told

    def _told(self, windows: Closed, *, final: bool) -> WindowResults:
        count = len(windows.series)
        if not count:
            return WindowResults()
        series, end = windows.series.tolist(), windows.end.tolist()
        revisions = [0] * count
        if self._emission != "close":
            revisions = [self._revision(*window, final=final) for window in zip(series, end, strict=True)]
        values, raised = self._values(windows)
        told = WindowResults(self._keys.of(series), windows.start.tolist(), end, values, revisions, [final] * count)
        return told.without(raised) if raised else told

    def _values(self, windows: Closed) -> tuple[dict[str, Sequence[Any]], dict[int, Raised]]:
        """Return what each aggregate tells of each window, and what a user's code raised of which instead."""
        raised = dict(windows.errors)
        values: dict[str, Sequence[Any]] = {}
        for name, aggregate, place, by_a_user in self._read:
            states = windows.states[place]
            if not by_a_user:
                values[name] = aggregate.results(states)
                continue
            values[name] = column = [MISSING] * len(states)
            wanted = [number for number in range(len(states)) if number not in windows.errors]
            try:
                for number, result in zip(wanted, _results(name, aggregate, states[wanted]), strict=True):
                    column[number] = result
            except Raised:
                for number in wanted:
                    try:
                        (column[number],) = _results(name, aggregate, states[number : number + 1])
                    except Raised as error:
                        raised.setdefault(number, error)
        return values, raised

    def _revision(self, series: int, end: int, *, final: bool) -> int:
        if final:
            return self._revisions.pop((series, end), 0)
        revision = self._revisions.get((series, end), 0)
        self._revisions[series, end] = revision + 1
        return revision

    def _told_late(self, places: Ints, event_ms: Ints, amount: Ints, reason: Literal["late", "future"]) -> list[Late]:
        if not len(places):
            return []
        start, end = self._state.bounds(event_ms[places])
        columns = zip(places.tolist(), start.tolist(), end.tolist(), amount.tolist(), strict=True)
        return [Late(place, begin, close, how_late, reason) for place, begin, close, how_late in columns]

    def _forget(self, now_ms: int) -> None:
        if not self._watermarks.by_key or now_ms < self._forget_at_ms:
            return
        self._forget_at_ms = now_ms + _FORGET_EACH_MS
        numbers = self._keys.known()
        if not len(numbers):
            return
        old = numbers[self._watermarks.seen_ms(numbers) < now_ms - _FORGET_MS]
        for number in np.setdiff1d(old, self._state.open_ends()[0]).tolist():
            self._gone.append(self._keys.drop(number))
            self._changed.discard(number)


class _Reading(NamedTuple):
    """An aggregate, which of the states it is read from, and whether a user's code does it."""

    name: str
    aggregate: Aggregate
    place: int
    is_of_a_user: bool


def _guarded(state: Aggregator, names: list[str]) -> Aggregator:
    return Guarded(state, f"aggregate {', '.join(names)}") if is_of_a_user(state) else state


def _results(name: str, aggregate: Aggregate, states: npt.NDArray[Any]) -> list[Any]:
    with calling(f"aggregate {name}"):
        results = list(aggregate.results(states))
        if len(results) != len(states):
            raise WindowError(f"results() gave {len(results)} for {len(states)} windows: give one for each")
        return results


def _state_of(windows: Assigner, aggregates: Sequence[Aggregator]) -> Panes | Sessions | Slid | Counted:
    if isinstance(windows, Hopping):
        return Panes(windows, aggregates)
    if isinstance(windows, Session):
        return Sessions(windows, aggregates)
    return Slid(windows, aggregates) if isinstance(windows, Sliding) else Counted(windows, aggregates)
