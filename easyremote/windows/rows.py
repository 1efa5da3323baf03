"""Records as columns, and what windows make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Closed", "Key", "Late", "Rows", "WindowResult"]

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]
"""Of float64, or of objects where something is no number. Any: a user's objects."""
Key = tuple[Any, ...]
"""The values of the fields that a stream is keyed by; what JSON can hold, and hashable."""


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


@dataclass(frozen=True, slots=True)
class Closed:
    """Windows whose results are told; arrays of shape (w,), `states` one array of w states for each aggregate."""

    series: Ints
    start: Ints
    end: Ints
    states: Sequence[npt.NDArray[Any]]  # Any: each aggregate has a dtype of its own
    let_go: Sequence[int] = ()
    """Series that hold less than before, though no window of theirs closed."""


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
class Late:
    """A record that no window takes, by its place in the batch."""

    place: int
    start: int
    end: int
    """The window that it came too late for, ms; where a window depends on its records: that of this one alone."""
    lateness_ms: int
    """How far behind what was still taken (`late`), or ahead of the wall clock (`future`)."""
    reason: Literal["late", "future"]
