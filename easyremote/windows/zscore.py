"""Finds readings that are far from what their series has been: a robust z-score with a memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError

__all__ = ["BASELINE", "Anomalies", "ZScore"]

BASELINE = [("learned", "<i8"), ("mean", "<f8"), ("variance", "<f8"), ("calm_left", "<i8")]
"""What the detector keeps of a series; `calm_left` is above 0 while an excursion lasts."""

_LEAST_STD = 1e-9


@dataclass(frozen=True, slots=True)
class Anomalies:
    """Readings at which an excursion began; arrays of shape (a,)."""

    place: npt.NDArray[np.int64]
    """Place of the reading in the batch that was scored."""
    expected: npt.NDArray[np.float64]
    std_dev: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ZScore:
    """Scores each reading by its distance from an exponential mean, in standard deviations.

    A reading is scored first and learned then. What it teaches is clipped, so that an outlier does not widen the
    baseline that should find the next one. An excursion is told once, when it begins; it ends after `calm` readings
    in a row below half the threshold.

    Parameters
    ----------
    threshold : float
        Absolute score from which on a reading is an anomaly.
    memory : int
        Readings that the mean remembers: the weight of a new one is 1 / memory. 500 hours are three weeks.
    warmup : int
        Readings of a series before the first one that may be an anomaly.
    clip : float
        Most standard deviations from the mean that one reading teaches.
    calm : int
        Readings in a row below half the threshold that end an excursion.
    least_share : float
        Least standard deviation as a share of the mean's absolute value: a series that stood still is not
        surprised by its sensor's last digit.

    Raises
    ------
    WindowError
        If a parameter is not positive.

    References
    ----------
    Roberts, "Control Chart Tests Based on Geometric Moving Averages", Technometrics 1959; clipping as in Huber,
    "Robust Estimation of a Location Parameter", 1964.
    """

    threshold: float = 4.0
    memory: int = 500
    warmup: int = 60
    clip: float = 3.0
    calm: int = 24
    least_share: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("threshold", "memory", "warmup", "clip", "calm", "least_share"):
            if not getattr(self, name) > 0:
                raise WindowError(f"the detector's {name} is {getattr(self, name)}: it must be positive")

    def step(
        self, baseline: npt.NDArray[Any], first: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
    ) -> Anomalies:
        """Score a batch and learn from it.

        Parameters
        ----------
        baseline : structured ndarray with the fields of `BASELINE`, shape (s,)
            State of the s series of the batch; changed in place.
        first : ndarray of int64, shape (s,)
            Where each series begins in `values`; rising, none empty.
        values : ndarray of float64, shape (n,)
            The readings, each series' together and in the order of arrival.

        Returns
        -------
        Anomalies
            The readings at which an excursion began.
        """
        count = np.diff(first, append=len(values))
        # The series with most readings first: those that still have one in a round are a prefix.
        order = np.argsort(-count, kind="stable")
        first, state, alive = first[order], baseline[order], len(order)
        by_count = count[order]
        found: list[tuple[npt.NDArray[Any], ...]] = []
        for turn in range(int(by_count[0])):
            while by_count[alive - 1] <= turn:
                alive -= 1
            place = first[:alive] + turn
            started = self._learn(state[:alive], values[place])
            if started is not None:
                which, expected, std_dev, score = started
                found.append((place[which], expected, std_dev, score))
        baseline[order] = state
        if not found:
            nothing = np.empty(0)
            return Anomalies(np.empty(0, np.int64), nothing, nothing, nothing)
        return Anomalies(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _learn(self, state: npt.NDArray[Any], value: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], ...] | None:
        learned, mean, variance = state["learned"], state["mean"], state["variance"]
        distance = value - mean
        std_dev = np.maximum(np.sqrt(variance), np.maximum(self.least_share * np.abs(mean), _LEAST_STD))
        warm = learned >= self.warmup
        score = np.where(warm, distance / std_dev, 0.0)
        far = np.abs(score) >= self.threshold
        calm_left = state["calm_left"]
        started = None
        if far.any():
            which = np.flatnonzero(far & (calm_left == 0))
            if len(which):
                started = (which, mean[which], std_dev[which], score[which])
        quiet = np.abs(score) < self.threshold / 2
        # Anything that is not quiet begins the count again, but only within an excursion.
        state["calm_left"] = np.where(far | ((calm_left > 0) & ~quiet), self.calm, np.maximum(calm_left - 1, 0))
        learned += 1
        weight = np.maximum(1.0 / learned, 1.0 / self.memory)
        bound = self.clip * std_dev
        step = np.where(learned > self.warmup, np.clip(distance, -bound, bound), distance)
        mean += weight * step
        state["variance"] = (1.0 - weight) * (variance + weight * step * step)
        return started
