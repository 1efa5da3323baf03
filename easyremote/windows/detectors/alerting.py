"""From scores to alerts: one is opened, updated while it gets worse, and closed; then the next must be worse still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from easyremote.errors import WindowError
from easyremote.windows.detectors.base import Floats, Ints, State

__all__ = ["ALERT", "AlertRule", "Changed", "Phase"]

Phase = Literal["opened", "updated", "closed"]

_DAY_MS = 86_400_000
_WORSE = 1.25
"""By this factor a score must exceed what was told for an update: an alert is no log."""
_LEAST_BAR = math.log(0.5)
ALERT = np.dtype(
    [
        ("bar", "<f8"),
        ("cool", "<i8"),
        ("calm", "<i8"),
        ("open", "?"),
        ("opened_ms", "<i8"),
        ("offset", "<i8"),
        ("worst", "<f8"),
        ("last_ms", "<i8"),
    ]
)
"""Of a series: by how much the threshold has risen (its logarithm); readings until another alert may open, and until
this one is closed; when and from which record it was opened; the worst score told; the last event time."""


class Changed(NamedTuple):
    """Places of the series whose alerts were opened, updated or closed by their reading."""

    opened: Ints
    updated: Ints
    closed: Ints


@dataclass(frozen=True)
class AlertRule:
    """When a score becomes an alert.

    Parameters
    ----------
    cooldown : int
        Readings of a series after an alert was opened before another may be; one that is still open then is closed, for
        what lasts is no news.
    calm : int
        Readings below half of the threshold that close an alert.
    rise : float
        By so much the threshold rises with each alert: a series that cries wolf is listened to less.
    memory : float
        Readings after which half of that is forgotten.
    per_day : float, optional
        An alert budget: the threshold of each series goes up and down so that in the long run about so many are opened
        a day of event time, whatever the scores are; never below half of the detector's. Unset: the detector's
        threshold rules.

    Raises
    ------
    WindowError
        If one is not possible.
    """

    cooldown: int = 90
    calm: int = 10
    rise: float = 0.08
    memory: float = 8_000.0
    per_day: float | None = None

    def __post_init__(self) -> None:
        if self.cooldown < 1 or self.calm < 1 or self.rise < 0 or self.memory < 1:
            raise WindowError(f"{self} is not possible: cooldown, calm and memory are at least 1, rise is not negative")
        if self.per_day is not None and not self.per_day > 0:
            raise WindowError(f"per_day={self.per_day!r}: an alert budget is positive")

    def step(self, state: State, limit: Floats, scores: Floats, event_ms: Ints, offsets: Ints) -> Changed:
        """Take the score of a reading of each of some series in.

        Parameters
        ----------
        state : structured ndarray of `ALERT`, shape (s,)
            Changed in place; zeros for a series that begins.
        limit : ndarray of float64, shape (s,)
            The detector's threshold.
        scores : ndarray of float64, shape (s,)
            Of the readings.
        event_ms, offsets : ndarray of int64, shape (s,)
            When and where they are.
        """
        self._forgive(state, event_ms)
        limit = limit * np.exp(state["bar"])
        state["cool"] = np.maximum(state["cool"] - 1, 0)
        was_open = state["open"].copy()
        quiet = scores < limit / 2
        state["calm"] = np.where(quiet, state["calm"] - 1, self.calm)
        closed = was_open & ((state["calm"] <= 0) | (state["cool"] == 0))
        updated = was_open & ~closed & (scores >= _WORSE * state["worst"])
        opened = ~was_open & (state["cool"] == 0) & (scores >= limit)
        state["open"] = (was_open & ~closed) | opened
        state["worst"] = np.where(opened | updated, scores, state["worst"])
        state["opened_ms"] = np.where(opened, event_ms, state["opened_ms"])
        state["offset"] = np.where(opened, offsets, state["offset"])
        state["cool"] = np.where(opened, self.cooldown, state["cool"])
        state["calm"] = np.where(opened, self.calm, state["calm"])
        state["bar"] += np.where(opened, math.log1p(self.rise), 0.0)
        return Changed(np.flatnonzero(opened), np.flatnonzero(updated), np.flatnonzero(closed))

    def _forgive(self, state: State, event_ms: Ints) -> None:
        if self.per_day is None:
            state["bar"] *= 0.5 ** (1.0 / self.memory)
        else:
            # The threshold stays where the alerts that raise it are as many as the days that lower it allow.
            passed = np.where(state["last_ms"] > 0, np.maximum(event_ms - state["last_ms"], 0), 0)
            fall = math.log1p(self.rise) * self.per_day * passed / _DAY_MS
            state["bar"] = np.maximum(state["bar"] - fall, _LEAST_BAR)
        state["last_ms"] = np.maximum(state["last_ms"], event_ms)
