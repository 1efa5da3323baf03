"""What every detector is: a rule that scores a reading of each of many series and then learns from it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["LEAST_STD", "Detector", "Floats", "Ints", "Scores", "State", "floored", "learn"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
State = npt.NDArray[Any]  # Any: a structured array has no static type for its fields

LEAST_STD = 1e-9
LEAST_SHARE = 1e-3
"""Of a level: a series that never changes has no deviation, and its first change must not divide by 0."""


class Scores(NamedTuple):
    """Of each series' reading: how unusual it is, in the detector's unit, 0 while it warms up; what was expected."""

    score: Floats
    expected: Floats


class Detector(Protocol):
    """A rule; its state of a series is a row of `dtype`, of a few hundred numbers at most."""

    @property
    def kind(self) -> str:
        """What an alert of it says that it is."""
        ...

    @property
    def threshold(self) -> float:
        """The score from which on a reading is an anomaly."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The state of one series."""
        ...

    def score(self, state: State, event_ms: Ints, values: Floats) -> Scores:
        """Score one reading of each of some series, then learn from it.

        Parameters
        ----------
        state : structured ndarray, shape (s,)
            Of the series; zeros for one that begins. Changed in place.
        event_ms : ndarray of int64, shape (s,)
            Event times, ms since the Unix epoch, UTC.
        values : ndarray of float64, shape (s,)
            Finite.
        """
        ...


def floored(std_dev: Floats, level: Floats) -> Floats:
    """Return a deviation that can be divided by."""
    floor: Floats = np.maximum(std_dev, np.maximum(LEAST_SHARE * np.abs(level), LEAST_STD))
    return floor


def learn(state: State, name: str, distance: Floats, weight: Floats) -> None:
    """Move a mean and a variance, `<name>_mean` and `<name>_var`, by a distance from the mean, with a weight."""
    state[f"{name}_mean"] += weight * distance
    variance = state[f"{name}_var"]
    state[f"{name}_var"] = (1.0 - weight) * (variance + weight * distance * distance)
