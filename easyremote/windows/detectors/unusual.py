"""The detector for everything: how surprising a reading is by its level, its step, its time of day and its drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.detectors.base import LEAST_SHARE, LEAST_STD, Floats, Ints, Scores, State

__all__ = ["Unusual"]

_DAY_MS = 86_400_000
_BUCKETS = 48
_BINS = 48
_PER_DECADE = 10
_LEAST_Z = 0.01
_VIEWS = 4
"""Level, step, time of day, drift."""
_RECENT = 8
_PRIOR = 4.0
"""So many readings' worth of belief that a distance of z deviations is as rare as 1 / (1 + z)²."""
_BEFORE_SCORING = 10
_BEFORE_CLIPPING = 20
_AR_DECAY = 0.999
_FARTHEST = 1e12
"""What is further away is as surprising: the square of the distance must be a number."""


def _weight(half_life: float) -> float:
    return float(1.0 - 0.5 ** (1.0 / half_life))


@dataclass(frozen=True)
class Unusual:
    """How surprising the last readings of a series are, from four views of it.

    Each view has a slow mean and deviation, which learn from no more than `clip` deviations, and a histogram of how far
    readings were from it. The surprise of a reading is the logarithm (base 10) of how rarely one was as far; so one
    that jumps every hour is not unusual when it does. The views are the level, the step from the reading before, the
    distance from what is usual at this time of day less what the distance before it foretold, and the mean of the last
    hours. The score is the root mean square of the four, averaged over the last 8 readings: 1 means that what
    is seen happens once in 10 readings, by all views, and goes on.

    Parameters
    ----------
    threshold : float
        Score of an anomaly.
    warmup : int
        Readings before the first score that counts.
    memory : float
        Readings after which half of what is usual is forgotten; of how far readings are from it, three times as many.
    drift : float
        Readings over which the drift is averaged, as a half-life.
    clip : float
        Deviations that a mean learns from at most.

    Raises
    ------
    WindowError
        If one is too small.

    Notes
    -----
    The state of a series is about 350 numbers. Parameters, reasons and scores on the Numenta Anomaly Benchmark, also on
    categories that they were chosen without, are in docs/decisions/0015-detector.md.
    """

    threshold: float = 1.0
    warmup: int = 200
    memory: float = 3_000.0
    drift: float = 24.0
    clip: float = 2.0
    kind: str = "unusual"

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and self.warmup >= 0 and min(self.memory, self.drift, self.clip) >= 1):
            raise WindowError(f"{self} is not possible: threshold is positive, memory, drift and clip are at least 1")

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is known of one series."""
        views = (_VIEWS,)
        return np.dtype(
            [
                ("count", "<i8"),
                ("known", "<f8", views),
                ("mean", "<f8", views),
                ("var", "<f8", views),
                ("far", "<f4", (_VIEWS, _BINS)),
                ("before", "<f8"),
                ("drift", "<f8"),
                ("usual", "<f8", (_BUCKETS,)),
                ("days", "<f4", (_BUCKETS,)),
                ("rest", "<f8"),
                ("rest_xy", "<f8"),
                ("rest_xx", "<f8"),
                ("recent", "<f4", (_RECENT,)),
            ]
        )

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score, then learn."""
        count = state["count"].copy()
        expected = state["mean"][:, 0].copy()
        views, valid, part, rest = self._views(state, event_ms, values)
        surprise = self._surprise(state, views, valid)
        self._learn_day(state, part, rest, values)
        score = np.sqrt((surprise * surprise).mean(axis=1))
        row = np.arange(len(state))
        state["recent"][row, count % _RECENT] = score
        state["before"] = values
        state["count"] += 1
        smooth = state["recent"].astype(np.float64).sum(axis=1) / np.minimum(count + 1, _RECENT)
        return Scores(np.where(count >= self.warmup, smooth, 0.0), np.where(count > 0, expected, values))

    def _views(
        self, state: State, event_ms: Ints, values: Floats
    ) -> tuple[Floats, npt.NDArray[np.bool_], Ints, Floats]:
        """Return what each view sees (s, 4), whether it sees anything, the part of the day, the distance from it."""
        row = np.arange(len(state))
        begun = state["count"] > 0
        state["drift"] += np.maximum(1.0 / (state["count"] + 1), _weight(self.drift)) * (values - state["drift"])
        part = event_ms % _DAY_MS * _BUCKETS // _DAY_MS
        seen = state["days"][row, part] > 0
        rest = np.where(seen, values - state["usual"][row, part], 0.0)
        carry = np.clip(state["rest_xy"] / np.maximum(state["rest_xx"], 1e-9), 0.0, 1.0)
        views = np.stack([values, values - state["before"], rest - carry * state["rest"], state["drift"]], axis=1)
        valid = np.stack([np.ones_like(begun), begun, seen, np.ones_like(begun)], axis=1)
        return views, valid, part, rest

    def _surprise(self, state: State, views: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
        """Return how surprising each view is (s, 4), and learn from it."""
        known, mean, variance, far = (state[name] for name in ("known", "mean", "var", "far"))
        distance = views - mean
        deviation = np.maximum(np.sqrt(variance), LEAST_SHARE * np.abs(mean) + LEAST_STD)
        z = np.where(known > _BEFORE_SCORING, np.minimum(np.abs(distance) / deviation, _FARTHEST), 0.0)
        bins = np.clip((np.log10(np.maximum(z, _LEAST_Z) / _LEAST_Z) * _PER_DECADE).astype(np.int64), 0, _BINS - 1)
        as_far = np.where(np.arange(_BINS) >= bins[:, :, None], far, 0.0).sum(axis=2, dtype=np.float64)
        total = far.sum(axis=2, dtype=np.float64)
        rarity = (as_far + _PRIOR / (1.0 + z) ** 2) / (total + _PRIOR)
        surprise: Floats = np.where(valid, -np.log10(rarity), 0.0)
        learning = valid & (known > _BEFORE_SCORING)
        far *= np.where(learning, 0.5 ** (1.0 / (3 * self.memory)), 1.0)[:, :, None].astype(np.float32)
        row, view = np.nonzero(learning)
        far[row, view, bins[row, view]] += 1
        bound = self.clip * deviation
        step = np.where(known >= _BEFORE_CLIPPING, np.clip(distance, -bound, bound), distance)
        weight = np.where(valid, np.maximum(1.0 / (known + 1), _weight(self.memory)), 0.0)
        mean += weight * step
        variance[...] = (1.0 - weight) * (variance + weight * step * step)
        known += valid
        return surprise

    def _learn_day(self, state: State, part: Ints, rest: Floats, values: Floats) -> None:
        row = np.arange(len(state))
        usual, days = state["usual"][row, part], state["days"][row, part].astype(np.float64)
        seen = days > 0
        bound = 2 * self.clip * np.sqrt(state["var"][:, 2]) + 1e-12
        step = np.where(days > 3, np.clip(rest, -bound, bound), rest)
        state["usual"][row, part] = np.where(seen, usual + np.maximum(1.0 / (days + 1), 0.02) * step, values)
        state["days"][row, part] = days + 1
        for name, other in (("rest_xy", state["rest"]), ("rest_xx", state["rest"])):
            first = rest if name == "rest_xy" else state["rest"]
            state[name] = np.where(seen, _AR_DECAY * state[name] + first * other, state[name])
        state["rest"] = rest
