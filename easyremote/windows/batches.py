"""Statistics of a batch at once, for a caller who needs no stream: by the contract, spec §7. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import msgspec
import numpy as np

from easyremote.errors import WindowError

__all__ = ["aggregates", "described", "is_number", "joined", "kind_of", "metric"]

LAST = 10
"""How many of the newest points `average` and `trend` look at."""
Z_THRESHOLD = 2.0
_LEAST_FOR_ANOMALY = 5
_LEAST_FOR_TREND = 3
_LEAST_STD = 1e-9
"""Of the mean: points that never differ have no deviation, and the first that does must not divide by 0."""
_MOST_PAIRS = 100_000
_TIMES = ("timestamp", "timestamp_ms")
_QUANTILES = {"p25": 0.25, "p75": 0.75, "p95": 0.95, "p99": 0.99}


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether something is a finite number that a float holds; a boolean is none."""
    try:
        return _is_numeric(value) and math.isfinite(value)
    except OverflowError:
        return False


def kind_of(item: object) -> str:
    """Return `dict`, `numeric`, `text` or `unknown`.

    Examples
    --------
    >>> [kind_of(one) for one in ({}, 1.5, "a", True, None)]
    ['dict', 'numeric', 'text', 'unknown', 'unknown']
    """
    if isinstance(item, dict):
        return "dict"
    if isinstance(item, str):
        return "text"
    return "numeric" if _is_numeric(item) else "unknown"


def _is_numeric(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def described(item: Any) -> dict[str, Any]:
    """Return what is said of one item, and its `type`.

    Raises
    ------
    OverflowError, ValueError
        If a number is too large to be one, or not finite.
    """
    kind = kind_of(item)
    if kind == "dict":
        told: dict[str, Any] = {
            "keys": list(item),
            "size": len(item),
            "has_timestamp": any(name in item for name in _TIMES),
            "summary": _summary(item),
        }
    elif kind == "numeric":
        value = float(item)
        if not math.isfinite(value):
            raise ValueError(f"{item!r} is no finite number")
        told = {
            "value": item,
            "is_integer": isinstance(item, int),
            "absolute_value": abs(item),
            "normalized": max(-1.0, min(1.0, value / 100)),
        }
    elif kind == "text":
        told = {
            "length": len(item),
            "word_count": len(item.split()),
            "has_numbers": any(letter.isdigit() for letter in item),
            "uppercase_ratio": sum(letter.isupper() for letter in item) / len(item) if item else 0.0,
        }
    else:
        told = {}
    return {"type": kind, **told}


def _summary(item: Mapping[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, str):
            summary |= {f"{name}_type": "text", f"{name}_length": len(value)}
        elif _is_numeric(value):
            summary |= {f"{name}_type": "numeric", f"{name}_value": value}
        else:
            summary[f"{name}_type"] = type(value).__name__
    return summary


def aggregates(items: Sequence[tuple[int, Any]], bounds_ms: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the aggregates of a window.

    Parameters
    ----------
    items : sequence of (int, object)
        When each came, ms, and what: a number counts as itself, a dict by its field `value`.
    bounds_ms : tuple of int, optional
        Begin and end of the window, ms; unset: the times of the first and of the last item.

    Returns
    -------
    dict
        `count`, `numeric_count`, `window_start`, `window_end` (ms), `type_distribution`; where there are numbers `sum`,
        `average`, `min`, `max`, `median`, `variance` (the population's) and `quantiles`. Of nothing:
        `{"count": 0, "message": "no_data"}`.
    """
    if not items:
        return {"count": 0, "message": "no_data"}
    start, end = bounds_ms or (items[0][0], items[-1][0])
    told: dict[str, Any] = {"count": len(items), "window_start": start, "window_end": end}
    candidates = [one.get("value") if isinstance(one, dict) else one for _, one in items]
    numbers = [float(one) for one in candidates if is_number(one)]
    told["numeric_count"] = len(numbers)
    told["type_distribution"] = dict(Counter(kind_of(one) for _, one in items))
    if numbers:
        try:
            average, total = statistics.fmean(numbers), math.fsum(numbers)
            variance = statistics.pvariance(numbers)
        except OverflowError as error:
            raise WindowError("the numbers of this window are too large for their sum: scale them down") from error
        told |= {
            "sum": total,
            "average": average,
            "min": min(numbers),
            "max": max(numbers),
            "median": statistics.median(numbers),
            "variance": variance,
            "quantiles": {name: float(np.quantile(numbers, q)) for name, q in _QUANTILES.items()},
        }
    return told


def metric(points: Sequence[Any], metric_type: str) -> dict[str, Any]:
    """Return a metric of points, the oldest first; see `StreamProcessor.real_time_analytics`.

    Raises
    ------
    ValueError
        If there is no such metric, or a point is a number that is not finite.
    WindowError
        If the points are too large for their differences or their deviation.
    """
    known = {"average": _average, "trend": _trend, "anomaly": _anomaly}
    if metric_type not in known:
        raise ValueError(f"unknown metric type {metric_type!r}: use one of {', '.join(known)}")
    for place, point in enumerate(points):
        if _is_numeric(point) and not is_number(point):
            raise ValueError(
                f"data_stream[{place}] is {point!r:.100}: every number must be finite, and one for a float"
            )
    try:
        told = known[metric_type](points)
    except OverflowError as error:
        raise WindowError("these points are too large for their mean or deviation: scale them down") from error
    if any(isinstance(one, float) and not math.isfinite(one) for one in told.values()):
        raise WindowError("these points are too large for their differences: scale them down")
    return told


def _average(points: Sequence[Any]) -> dict[str, Any]:
    last = points[-LAST:]
    numbers = [point for point in last if is_number(point)]
    if not last:
        return {"average": 0, "count": 0}
    if not numbers:
        return {"average": 0, "count": 0, "message": "no_numeric_data"}
    return {
        "average": statistics.fmean(numbers),
        "count": len(numbers),
        "window_size": len(last),
        "min": min(numbers),
        "max": max(numbers),
    }


def _trend(points: Sequence[Any]) -> dict[str, Any]:
    if len(points) < _LEAST_FOR_TREND:
        return {"trend": "insufficient_data"}
    numbers = [float(point) for point in points[-LAST:] if is_number(point)]
    if len(numbers) < _LEAST_FOR_TREND:
        return {"trend": "insufficient_numeric_data"}
    changes = [after - before for before, after in pairwise(numbers)]
    rises, falls = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    return {
        "trend": "stable" if rises == falls else "increasing" if rises > falls else "decreasing",
        "confidence": abs(rises - falls) / len(changes),
        "change_points": len(changes),
        "average_change": statistics.fmean(changes),
    }


def _anomaly(points: Sequence[Any]) -> dict[str, Any]:
    if len(points) < _LEAST_FOR_ANOMALY:
        return {"anomaly": False, "reason": "insufficient_data"}
    numbers = [point for point in points if is_number(point)]
    if len(numbers) < _LEAST_FOR_ANOMALY:
        return {"anomaly": False, "reason": "insufficient_numeric_data"}
    *before, latest = numbers
    mean, std_dev = statistics.fmean(numbers), statistics.pstdev(numbers)
    z_score = abs(latest - mean) / std_dev if std_dev else 0.0
    mean_before, std_before = statistics.fmean(before), statistics.pstdev(before)
    return {
        "anomaly": z_score > Z_THRESHOLD,
        "z_score": z_score,
        # With the point in its own yardstick, of n points none is further away than the root of n - 1.
        "z_score_excluding_latest": abs(latest - mean_before)
        / max(std_before, _LEAST_STD * abs(mean_before), _LEAST_STD),
        "latest_value": latest,
        "mean": mean,
        "std_dev": std_dev,
        "threshold": Z_THRESHOLD,
    }


def joined(stream_a: Sequence[Any], stream_b: Sequence[Any], join_key: str) -> list[dict[str, Any]]:
    """Return the pairs of records that have the same value under a key, in the order of `stream_a`.

    What is no object, or lacks the key, has no pair. `true` is not 1.

    Raises
    ------
    WindowError
        If there would be more than 100,000 pairs.

    Examples
    --------
    >>> joined([{"id": 1, "a": 2}], [{"id": 1, "b": 3}, {"b": 4}], "id")[0]["join_value"]
    1
    """
    by_value: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for record in stream_b:
        if isinstance(record, dict) and join_key in record:
            by_value[_same(record[join_key])].append(record)
    results: list[dict[str, Any]] = []
    for record in stream_a:
        if not isinstance(record, dict) or join_key not in record:
            continue
        value = record[join_key]
        matches = by_value.get(_same(value), [])
        if len(results) + len(matches) > _MOST_PAIRS:
            raise WindowError(f"more than {_MOST_PAIRS:,} pairs: join smaller batches, or two topics by a pipeline")
        results += [
            {"stream_a": record, "stream_b": other, "join_key": join_key, "join_value": value} for other in matches
        ]
    return results


def _same(value: Any) -> Any:  # Any: whatever JSON holds
    if isinstance(value, bool) or value is None:
        return (type(value), value)
    return value if isinstance(value, int | float | str) else msgspec.json.encode(value, order="deterministic")
