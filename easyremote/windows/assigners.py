"""The windows that a stream is cut into: what a user asks for, checked when it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from easyremote.errors import WindowError
from easyremote.windows.durations import Duration, duration_ms

__all__ = ["Assigner", "CountWindow", "EventTime", "Hopping", "Session", "Sliding", "Tumbling"]


def _positive(name: str, given: Duration) -> int:
    found = duration_ms(given)
    if found <= 0:
        raise WindowError(f"{name} of {given!r} is not possible: it must be positive")
    return found


@dataclass(frozen=True)
class Hopping:
    """Windows of one length, one of which begins every `hop`: `[k * hop, k * hop + size)`.

    A record counts in all of its windows, or in none and is late. Its work is done once, in the pane of length
    gcd(size, hop) that holds it; a window merges its panes.

    Parameters
    ----------
    size, hop : str, int (ms) or timedelta
        `hop` is at most `size`, so that every record has a window.

    Raises
    ------
    WindowError
        If one is not positive, or the hop longer than the size.

    References
    ----------
    Li et al., "No Pane, No Gain", SIGMOD Record 2005.
    """

    size: Duration
    hop: Duration
    size_ms: int = field(init=False)
    hop_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_ms", _positive("a window", self.size))
        object.__setattr__(self, "hop_ms", _positive("a hop", self.hop))
        if self.hop_ms > self.size_ms:
            raise WindowError(
                f"windows of {self.size_ms} ms every {self.hop_ms} ms leave gaps: make the hop at most the size"
            )

    @property
    def pane_ms(self) -> int:
        """Length of the pieces that the windows are made of."""
        return math.gcd(self.size_ms, self.hop_ms)


class Tumbling(Hopping):
    """Windows of one length, one after the other: `[k * size, (k + 1) * size)`.

    Parameters
    ----------
    size : str, int (ms) or timedelta
        Their length.

    Raises
    ------
    WindowError
        If it is not positive.
    """

    def __init__(self, size: Duration) -> None:
        super().__init__(size, size)


@dataclass(frozen=True)
class Sliding:
    """For each time at which a key has a record, the window that ends with it: `(t - size, t]`.

    Parameters
    ----------
    size : str, int (ms) or timedelta
        How far back it reaches.

    Raises
    ------
    WindowError
        If it is not positive.
    """

    size: Duration
    size_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_ms", _positive("a window", self.size))


@dataclass(frozen=True)
class Session:
    """Windows of activity: a record belongs to the session of one that is less than `gap` away from it.

    A session is `[first, last + gap)`.

    Parameters
    ----------
    gap : str, int (ms) or timedelta
        Silence that ends a session.

    Raises
    ------
    WindowError
        If it is not positive.
    """

    gap: Duration
    gap_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gap_ms", _positive("a gap", self.gap))


@dataclass(frozen=True)
class CountWindow:
    """Windows of so many records of a key, in the order of their event time; equal times by their offsets.

    A window is `[first, last + 1 ms)`. One that is not full is not told.

    Parameters
    ----------
    size : int
        Records of a window.
    hop : int, optional
        Records from the begin of one to the begin of the next; unset: `size`.

    Raises
    ------
    WindowError
        If one is not positive, or the hop greater than the size.
    """

    size: int
    hop: int = 0

    def __post_init__(self) -> None:
        if self.hop == 0:
            object.__setattr__(self, "hop", self.size)
        if not 0 < self.hop <= self.size:
            raise WindowError(
                f"windows of {self.size} records every {self.hop} are not possible: both must be positive, "
                "and the hop at most the size"
            )


Assigner = Tumbling | Hopping | Sliding | Session | CountWindow


@dataclass(frozen=True)
class EventTime:
    """When a window may be closed.

    The watermark is the greatest event time so far less the lateness. It is kept for each key, so that a device
    which catches up is not late by its neighbours' clocks (docs/decisions/0004), or for a whole partition, so that
    keys that come once close by the time of the others.

    Parameters
    ----------
    lateness : str, int (ms) or timedelta
        How far behind the greatest event time a record may be.
    idle : str, int (ms) or timedelta
        Silence by the wall clock after which the open windows are closed.
    watermark : {"key", "partition"}
        Whose greatest event time it is.

    Raises
    ------
    WindowError
        If a length is none, or `idle` is not positive.
    """

    lateness: Duration = 0
    idle: Duration = "30s"
    watermark: Literal["key", "partition"] = "key"
    lateness_ms: int = field(init=False)
    idle_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lateness_ms", duration_ms(self.lateness))
        object.__setattr__(self, "idle_ms", _positive("an idle time", self.idle))
        if self.watermark not in {"key", "partition"}:
            raise WindowError(f'watermark={self.watermark!r}: it is kept for each "key" or for a "partition"')
