"""What can be said about a handful of points at once: trend, correlation with time, a prediction. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from easyremote.errors import EdgeError

__all__ = ["edge_analytics", "summary"]

_FLAT_SHARE = 0.01
"""A slope whose whole rise is below this share of the points' spread is no trend."""
_WINDOW = 5


def _points(given: Sequence[float], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    for place, one in enumerate(given):
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            raise EdgeError(f"{name}[{place}] is {one!r}: every point must be a finite number")
    return np.array(given, np.float64)


def summary(sensor_readings: Sequence[float]) -> dict[str, float]:
    """Return `average`, `max`, `min` and the population's `variance` of readings.

    Raises
    ------
    EdgeError
        If there is none, or one is no finite number.

    Examples
    --------
    >>> summary([1.0, 3.0])
    {'average': 2.0, 'max': 3.0, 'min': 1.0, 'variance': 1.0}
    """
    points = _points(sensor_readings, "sensor_readings")
    if not len(points):
        raise EdgeError("sensor_readings is empty: give at least one reading")
    return {
        "average": float(points.mean()),
        "max": float(points.max()),
        "min": float(points.min()),
        "variance": float(points.var()),
    }


def edge_analytics(data_points: Sequence[float], analysis_type: str) -> dict[str, Any]:
    """Analyse points taken at equal intervals, by the contract (spec §6).

    Parameters
    ----------
    data_points : sequence of float
        The oldest first.
    analysis_type : {"trend", "correlation", "prediction"}
        `trend`: slope by least squares per interval; its confidence is the coefficient of determination R², the
        share of the points' variance that the line explains. `correlation`: Pearson's with time. `prediction`: the
        next point, as the moving average of the last five plus their slope; its confidence is R² of that line.

    Raises
    ------
    ValueError
        If the type is another one.
    EdgeError
        If a point is no finite number.

    Examples
    --------
    >>> edge_analytics([1, 2, 3, 4], "trend")
    {'trend': 'increasing', 'slope': 1.0, 'confidence': 1.0}
    """
    analyses: dict[str, Callable[[Any], dict[str, Any]]] = {
        "trend": _trend,
        "correlation": _correlation,
        "prediction": _prediction,
    }
    if analysis_type not in analyses:
        raise ValueError(f"analysis_type {analysis_type!r} is none of {', '.join(analyses)}")
    return analyses[analysis_type](_points(data_points, "data_points"))


def _line(points: Any) -> tuple[float, float]:
    """Return slope per interval and R² of the least-squares line."""
    times = np.arange(len(points)) - (len(points) - 1) / 2
    centred = points - points.mean()
    total = float(centred @ centred)
    slope = float(times @ centred) / float(times @ times)
    # A constant is explained by a flat line entirely.
    return slope, (1.0 if total == 0 else min(1.0, slope * slope * float(times @ times) / total))


def _trend(points: Any) -> dict[str, Any]:
    if len(points) < 2:
        return {"trend": "insufficient_data", "slope": 0.0, "confidence": 0.0}
    slope, confidence = _line(points)
    spread = float(points.max() - points.min())
    if abs(slope) * (len(points) - 1) <= _FLAT_SHARE * spread or spread == 0:
        return {"trend": "stable", "slope": slope, "confidence": confidence}
    return {"trend": "increasing" if slope > 0 else "decreasing", "slope": slope, "confidence": confidence}


def _correlation(points: Any) -> dict[str, Any]:
    if len(points) < 3:
        return {"correlation": "insufficient_data"}
    slope, explained = _line(points)
    found = 0.0 if points.max() == points.min() else math.copysign(math.sqrt(explained), slope)
    bounds = ((0.8, "strong"), (0.5, "moderate"), (0.3, "weak"))
    interpretation = next((name for bound, name in bounds if abs(found) > bound), "very_weak")
    return {"time_correlation": found, "interpretation": interpretation}


def _prediction(points: Any) -> dict[str, Any]:
    if len(points) < 3:
        return {"prediction": "insufficient_data"}
    recent = points[-_WINDOW:]
    slope, confidence = _line(recent)
    # The moving average stands in the middle of its window; the next point is half a window and a step on.
    ahead = (len(recent) + 1) / 2
    return {
        "predicted_value": float(recent.mean()) + slope * ahead,
        "confidence": confidence,
        "method": "moving_average_with_trend",
    }
