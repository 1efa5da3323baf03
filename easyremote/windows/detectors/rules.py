"""Detectors that look for one thing each: far from the mean, from the median, from the time of day, a shift, a stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from easyremote.errors import WindowError
from easyremote.windows.detectors.base import Floats, Ints, Scores, State, floored, learn
from easyremote.windows.durations import Duration, duration_ms

__all__ = ["Cusum", "FlatLine", "Missing", "Robust", "Seasonal", "ZScore"]

_DAY_MS = 86_400_000
_MAD_TO_STD = 1.4826
"""A normal distribution's deviation is so many of its median absolute deviations."""


def _check(**least: tuple[float, float]) -> None:
    for name, (value, bound) in least.items():
        if not value >= bound:
            raise WindowError(f"{name}={value!r} is not possible: it must be at least {bound:g}")


@dataclass(frozen=True)
class ZScore:
    """How many standard deviations a reading is from the mean of those before it.

    Parameters
    ----------
    threshold : float
        Score of an anomaly, standard deviations.
    window : int, optional
        Mean and deviation are of the last so many readings; unset: of all, the older the less (`memory`).
    memory : float
        Without a window: readings after which half of what was learned is forgotten.
    warmup : int
        Readings before the first score.
    clip : float
        Without a window: the mean learns from a reading no further away than so many deviations, so that an outlier
        does not become the rule.

    Raises
    ------
    WindowError
        If one is too small.
    """

    threshold: float = 3.0
    window: int | None = None
    memory: float = 200.0
    warmup: int = 20
    clip: float = 3.0
    kind: str = "z_score"

    def __post_init__(self) -> None:
        _check(threshold=(self.threshold, 0.1), memory=(self.memory, 1), warmup=(self.warmup, 2), clip=(self.clip, 1))
        if self.window is not None:
            _check(window=(self.window, 5))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Count, mean and variance, or the readings of the window."""
        if self.window is None:
            return np.dtype([("count", "<i8"), ("x_mean", "<f8"), ("x_var", "<f8")])
        return np.dtype([("count", "<i8"), ("last", "<f8", (self.window,))])

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        count = state["count"]
        if self.window is None:
            mean, std_dev = state["x_mean"].copy(), np.sqrt(state["x_var"])
        else:
            mean, std_dev = _moments(state["last"], count)
        distance = values - mean
        warm = count >= self.warmup if self.window is None else count >= min(self.warmup, self.window)
        deviation = floored(std_dev, mean)
        scores = np.where(warm, np.abs(distance) / deviation, 0.0)
        if self.window is None:
            bound = self.clip * deviation
            step = np.where(warm, np.clip(distance, -bound, bound), distance)
            learn(state, "x", step, np.maximum(1.0 / (count + 1), 1.0 - 0.5 ** (1.0 / self.memory)))
        else:
            state["last"][np.arange(len(state)), count % self.window] = values
        state["count"] += 1
        return Scores(scores, mean)


def _moments(last: Floats, count: Ints) -> tuple[Floats, Floats]:
    held = np.minimum(count, last.shape[1])
    known = np.arange(last.shape[1]) < held[:, None]
    number = np.maximum(held, 1)
    mean: Floats = np.where(known, last, 0.0).sum(axis=1) / number
    spread = np.where(known, last - mean[:, None], 0.0)
    std_dev: Floats = np.sqrt((spread * spread).sum(axis=1) / number)
    return mean, std_dev


@dataclass(frozen=True)
class Robust:
    """How many robust deviations (1.4826 times the median absolute one) a reading is from the median before it.

    Up to half of the window may be outliers without moving it.

    Parameters
    ----------
    threshold : float
        Score of an anomaly, robust standard deviations.
    window : int
        Readings of which median and deviation are taken.
    warmup : int
        Readings before the first score.

    Raises
    ------
    WindowError
        If one is too small.

    References
    ----------
    Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993.
    """

    threshold: float = 6.0
    window: int = 64
    warmup: int = 20
    kind: str = "robust"

    def __post_init__(self) -> None:
        _check(threshold=(self.threshold, 0.1), window=(self.window, 5), warmup=(self.warmup, 3))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The readings of the window."""
        return np.dtype([("count", "<i8"), ("last", "<f8", (self.window,))])

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        count = state["count"]
        held = np.arange(self.window) < np.minimum(count, self.window)[:, None]
        begun = count > 0
        last = np.where(held | ~begun[:, None], np.where(begun[:, None], state["last"], 0.0), np.nan)
        median: Floats = np.nanmedian(last, axis=1)
        deviation = _MAD_TO_STD * np.nanmedian(np.abs(last - median[:, None]), axis=1)
        warm = count >= min(self.warmup, self.window)
        scores = np.where(warm, np.abs(values - median) / floored(deviation, median), 0.0)
        state["last"][np.arange(len(state)), count % self.window] = values
        state["count"] += 1
        return Scores(scores, median)


@dataclass(frozen=True)
class Seasonal:
    """How far a reading is from what is usual at its time of day, in deviations of that distance.

    Parameters
    ----------
    threshold : float
        Score of an anomaly, standard deviations.
    buckets : int
        Parts of the day (UTC) that have a mean each.
    memory : float
        Readings of a part after which half of what was learned of it is forgotten.
    warmup : int
        Readings of a part before the first score in it.
    clip : float
        As of `ZScore`.

    Raises
    ------
    WindowError
        If one is too small.
    """

    threshold: float = 4.0
    buckets: int = 48
    memory: float = 50.0
    warmup: int = 3
    clip: float = 3.0
    kind: str = "seasonal"

    def __post_init__(self) -> None:
        _check(threshold=(self.threshold, 0.1), buckets=(self.buckets, 2), memory=(self.memory, 1))
        _check(warmup=(self.warmup, 2), clip=(self.clip, 1))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Mean and count of each part of the day; the deviation of all."""
        part = (self.buckets,)
        return np.dtype(
            [("usual", "<f8", part), ("known", "<f8", part), ("count", "<i8"), ("x_mean", "<f8"), ("x_var", "<f8")]
        )

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        row = np.arange(len(state))
        part = event_ms % _DAY_MS * self.buckets // _DAY_MS
        usual, known = state["usual"][row, part], state["known"][row, part]
        distance = np.where(known > 0, values - usual, 0.0)
        deviation = floored(np.sqrt(state["x_var"]), usual)
        warm = known >= self.warmup
        scores = np.where(warm, np.abs(distance) / deviation, 0.0)
        bound = self.clip * deviation
        step = np.where(warm, np.clip(distance, -bound, bound), distance)
        weight = np.maximum(1.0 / (known + 1), 1.0 - 0.5 ** (1.0 / self.memory))
        state["usual"][row, part] = np.where(known > 0, usual + weight * step, values)
        state["known"][row, part] += 1
        seen = known > 0
        count = state["count"]
        pace = np.maximum(1.0 / (count + 1), 1.0 - 0.5 ** (1.0 / (self.memory * self.buckets)))
        learn(state, "x", step - state["x_mean"], np.where(seen, pace, 0.0))
        state["count"] += seen
        return Scores(scores, np.where(seen, usual, values))


@dataclass(frozen=True)
class Cusum:
    """A lasting shift of the level: the sum of what goes beyond a slack of the mean, either way.

    Parameters
    ----------
    threshold : float
        Score of an anomaly, in deviations that have summed up.
    slack : float
        Deviations from the mean that do not count.
    memory, warmup : float, int
        As of `ZScore`.

    Raises
    ------
    WindowError
        If one is too small.

    References
    ----------
    Page, "Continuous Inspection Schemes", Biometrika 1954.
    """

    threshold: float = 12.0
    slack: float = 1.0
    memory: float = 500.0
    warmup: int = 30
    kind: str = "level_shift"

    def __post_init__(self) -> None:
        _check(threshold=(self.threshold, 0.1), slack=(self.slack, 0), memory=(self.memory, 1), warmup=(self.warmup, 2))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Mean, variance and the sums upwards and downwards."""
        return np.dtype([("count", "<i8"), ("x_mean", "<f8"), ("x_var", "<f8"), ("up", "<f8"), ("down", "<f8")])

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        count, mean = state["count"], state["x_mean"].copy()
        distance = values - mean
        deviation = floored(np.sqrt(state["x_var"]), mean)
        warm = count >= self.warmup
        # One reading adds four deviations at most: a spike is no shift.
        far = np.clip(distance / deviation, -4.0, 4.0)
        state["up"] = np.where(warm, np.maximum(0.0, state["up"] + far - self.slack), 0.0)
        state["down"] = np.where(warm, np.maximum(0.0, state["down"] - far - self.slack), 0.0)
        scores: Floats = np.maximum(state["up"], state["down"])
        told = scores >= self.threshold
        # What was told begins anew from the new level.
        state["up"][told] = state["down"][told] = 0.0
        step = np.where(warm & ~told, np.clip(distance, -3 * deviation, 3 * deviation), distance)
        weight = np.maximum(1.0 / (count + 1), 1.0 - 0.5 ** (1.0 / self.memory))
        learn(state, "x", step, np.where(told, 0.5, weight))
        state["count"] += 1
        return Scores(scores, mean)


@dataclass(frozen=True)
class FlatLine:
    """A sensor that is stuck: the same value for longer than this series has ever shown it.

    The score is the length of the run, in multiples of `least` or of the longest run before it, whichever is more.

    Parameters
    ----------
    threshold : float
        Score of an anomaly.
    least : int
        Readings of a run that are never unusual.

    Raises
    ------
    WindowError
        If one is too small.
    """

    threshold: float = 2.0
    least: int = 20
    kind: str = "flat_line"

    def __post_init__(self) -> None:
        _check(threshold=(self.threshold, 1.01), least=(self.least, 2))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The value, how long it has been so, the longest run."""
        return np.dtype([("value", "<f8"), ("run", "<i8"), ("longest", "<i8"), ("begun", "?")])

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        expected = np.where(state["begun"], state["value"], values)
        same = state["begun"] & (state["value"] == values)
        state["longest"] = np.where(same, state["longest"], np.maximum(state["longest"], state["run"]))
        state["run"] = np.where(same, state["run"] + 1, 1)
        state["value"], state["begun"] = values, True
        return Scores(state["run"] / np.maximum(state["longest"], self.least), expected)


@dataclass(frozen=True)
class Missing:
    """A gap: more time since the last reading than is usual, told by the reading that ends it.

    Readings that never come back are the heartbeat's to tell. The score is the gap in multiples of the usual distance.

    Parameters
    ----------
    threshold : float
        Score of an anomaly.
    least : str, int (ms) or timedelta
        A gap that is never unusual.
    memory, warmup : float, int
        As of `ZScore`.

    Raises
    ------
    WindowError
        If one is too small.
    """

    threshold: float = 10.0
    least: Duration = "1s"
    memory: float = 100.0
    warmup: int = 20
    kind: str = "missing"

    def __post_init__(self) -> None:
        _check(threshold=(self.threshold, 1.01), memory=(self.memory, 1), warmup=(self.warmup, 2))
        duration_ms(self.least)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The last time and the usual distance, ms."""
        return np.dtype([("count", "<i8"), ("last_ms", "<i8"), ("usual_ms", "<f8")])

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        count, usual = state["count"], state["usual_ms"]
        gap = np.where(count > 0, np.maximum(event_ms - state["last_ms"], 0), 0).astype(np.float64)
        told = (count > self.warmup) & (gap > duration_ms(self.least))
        scores = np.where(told, gap / np.maximum(usual, 1.0), 0.0)
        weight = np.maximum(1.0 / np.maximum(count, 1), 1.0 - 0.5 ** (1.0 / self.memory))
        # A gap teaches no more than twice what is usual, or the next one would be.
        learned = np.where(count > self.warmup, np.minimum(gap, 2 * usual + 1), gap)
        state["usual_ms"] = np.where(count > 0, usual + weight * (learned - usual), 0.0)
        state["last_ms"] = np.maximum(state["last_ms"], event_ms)
        state["count"] += 1
        return Scores(scores, values)
