"""Records as columns, and what windows make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from easyremote.windows.guarding import FailedWindow

if TYPE_CHECKING:
    from easyremote.windows.guarding import Raised

__all__ = ["MISSING", "Closed", "Key", "Late", "Rows", "WindowResult", "WindowResults"]

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]
"""Of float64, or of objects where something is no number. Any: a user's objects."""
Key = tuple[Any, ...]
"""The values of the fields that a stream is keyed by; what JSON can hold, and hashable."""


MISSING = object()
"""In place of what a user's code should have made."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Records of one partition, in the order of the log.

    Parameters
    ----------
    keys : sequence of tuple
        Key of each of n records.
    event_ms : ndarray of int64, shape (n,)
        Event time, ms since the Unix epoch, UTC, 0 or more and below 2**48.
    offsets : ndarray of int64, shape (n,)
        Offset of each record; rising.
    columns : mapping of str to ndarray, shape (n,)
        The fields that are aggregated.
    """

    keys: Sequence[Key]
    event_ms: Ints
    offsets: Ints
    columns: Mapping[str, Column]

    def chosen(self, places: Ints) -> Rows:
        """Return the rows at some places."""
        columns = {name: column[places] for name, column in self.columns.items()}
        numbers: list[int] = places.tolist()
        keys = [self.keys[place] for place in numbers]
        return Rows(keys, self.event_ms[places], self.offsets[places], columns)


@dataclass(frozen=True, slots=True)
class Closed:
    """Windows whose results are told; arrays of shape (w,), `states` one array of w states for each aggregate."""

    series: Ints
    start: Ints
    end: Ints
    states: Sequence[npt.NDArray[Any]]  # Any: each aggregate has a dtype of its own
    let_go: Sequence[int] = ()
    """Series that hold less than before, though no window of theirs closed."""
    errors: Mapping[int, Raised] = field(default_factory=dict)
    """What a user's code raised where there is no state of a window, by the window's number."""


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The result of one window: a key's, `[start, end)` in ms."""

    key: Key
    start: int
    end: int
    values: dict[str, Any]  # Any: whatever the aggregates give
    revision: int = 0
    """How many results of this window were told before."""
    final: bool = True


@dataclass(frozen=True, slots=True)
class WindowResults:
    """The results of w windows as columns; iterated over, each is a `WindowResult`.

    Parameters
    ----------
    keys : sequence of tuple
        Whose each is.
    start, end : sequence of int
        Its bounds, ms.
    values : mapping of str to sequence
        Of each aggregate.
    revision : sequence of int
        How many results of the window were told before.
    final : sequence of bool
        Whether it is closed.
    failed : sequence of FailedWindow
        Windows beside these of which a user's code made no result.
    """

    keys: Sequence[Key] = ()
    start: Sequence[int] = ()
    end: Sequence[int] = ()
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # Any: whatever the aggregates give
    revision: Sequence[int] = ()
    final: Sequence[bool] = ()
    failed: Sequence[FailedWindow] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[WindowResult]:
        rows = zip(*self.values.values(), strict=True) if self.values else [()] * len(self)
        columns = zip(self.keys, self.start, self.end, rows, self.revision, self.final, strict=True)
        for key, start, end, row, revision, final in columns:
            yield WindowResult(key, start, end, dict(zip(self.values, row, strict=True)), revision, final)

    def without(self, raised: Mapping[int, Raised]) -> WindowResults:
        """Return these without some, by their number, of which a user's code made no result: they are `failed` then."""
        kept = [number for number in range(len(self)) if number not in raised]
        failed = [
            FailedWindow(
                self.keys[number],
                self.start[number],
                self.end[number],
                self.revision[number],
                self.final[number],
                error.stage,
                error.error,
                {name: column[number] for name, column in self.values.items() if column[number] is not MISSING},
            )
            for number, error in sorted(raised.items(), key=lambda one: one[0])
        ]
        return WindowResults(
            [self.keys[number] for number in kept],
            [self.start[number] for number in kept],
            [self.end[number] for number in kept],
            {name: [column[number] for number in kept] for name, column in self.values.items()},
            [self.revision[number] for number in kept],
            [self.final[number] for number in kept],
            [*self.failed, *failed],
        )

    def followed_by(self, more: WindowResults) -> WindowResults:
        """Return these and then others of the same windows and aggregates."""
        failed = [*self.failed, *more.failed]
        if not len(self) or not len(more):
            return replace(self if len(self) else more, failed=failed)
        return WindowResults(
            [*self.keys, *more.keys],
            [*self.start, *more.start],
            [*self.end, *more.end],
            {name: [*column, *more.values[name]] for name, column in self.values.items()},
            [*self.revision, *more.revision],
            [*self.final, *more.final],
            failed,
        )


@dataclass(frozen=True, slots=True)
class Late:
    """A record that no window takes, by its place in the batch."""

    place: int
    start: int
    end: int
    """The window that it came too late for, ms; where a window depends on its records: that of this one alone."""
    lateness_ms: int
    """How far behind what was still taken (`late`), or ahead of the wall clock (`future`)."""
    reason: Literal["late", "future"]
