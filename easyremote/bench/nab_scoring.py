"""Scores detections by the rules of the Numenta Anomaly Benchmark.

An alarm within a labelled window earns the more the earlier it is, once a window; one outside costs little just behind
a window, and fully far from it. The score is 0 where nothing is ever alarmed, 100 where each window's first row is.

References
----------
Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark", ICMLA 2015; the
positions are those of the benchmark's own program.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from easyremote.errors import ConfigError

__all__ = ["PROFILES", "Found", "Labelled", "Profile", "normalized", "read_corpus", "scored"]

_PROBATION_SHARE = 0.15
_MOST_PROBATION = 750
_FAR = 3.0
"""So many windows' widths behind a window an alarm has nothing to do with it."""


@dataclass(frozen=True)
class Profile:
    """What detections and failures are worth."""

    hit: float
    false_alarm: float
    miss: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "low_fp": Profile(1.0, 0.22, 1.0),
    "low_fn": Profile(1.0, 0.11, 2.0),
}


@dataclass(frozen=True)
class Labelled:
    """A series and where it is anomalous: first and last row of each window."""

    name: str
    event_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    windows: Sequence[tuple[int, int]]

    @property
    def category(self) -> str:
        """The folder that it is in."""
        return self.name.partition("/")[0]

    @property
    def probation(self) -> int:
        """How many rows at its begin are for learning only."""
        return min(int(_PROBATION_SHARE * len(self.values)), _MOST_PROBATION)


@dataclass(frozen=True)
class Found:
    """What the alarms of a series, or of several, are worth, and how many there were."""

    points: float = 0.0
    windows: int = 0
    hits: int = 0
    false_alarms: int = 0
    rows: int = 0
    delays: tuple[int, ...] = ()
    """Rows from the begin of each window that was hit to its first alarm."""

    def __add__(self, other: Found) -> Found:
        return Found(
            self.points + other.points,
            self.windows + other.windows,
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.rows + other.rows,
            self.delays + other.delays,
        )


def read_corpus(folder: Path) -> list[Labelled]:
    """Read `data/<category>/*.csv` (`timestamp`, `value`; UTC) and `windows.json`.

    Raises
    ------
    ConfigError
        If a file is missing, or is none of that form; the message names it.
    """
    try:
        labels: dict[str, list[list[str]]] = json.loads((folder / "windows.json").read_text())
        return [_read(folder / "data" / name, name, windows) for name, windows in sorted(labels.items())]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{folder} is no corpus of data/<category>/*.csv with timestamp and value, and windows.json: "
            f"{type(error).__name__}: {error}"
        ) from error


def _read(path: Path, name: str, windows: list[list[str]]) -> Labelled:
    with path.open(newline="") as file:
        rows = [(_ms(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
    if not rows:
        raise ValueError(f"{name} has no row")
    event_ms = np.array([at for at, _ in rows], np.int64)
    places = []
    for begin, end in windows:
        inside = np.flatnonzero((event_ms >= _ms(begin)) & (event_ms <= _ms(end)))
        if not len(inside):
            raise ValueError(f"{name} has no row within {begin} to {end}")
        places.append((int(inside[0]), int(inside[-1])))
    return Labelled(name, event_ms, np.array([value for _, value in rows]), places)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def scored(series: Labelled, alarms: npt.NDArray[np.bool_], profile: Profile) -> Found:
    """Return what alarms are worth; those of the probation do not count.

    Parameters
    ----------
    series : Labelled
        Of n rows.
    alarms : ndarray of bool, shape (n,)
        At which rows there was one.
    profile : Profile
        What is worth what.
    """
    rows = np.flatnonzero(alarms)
    rows = rows[rows >= series.probation]
    outside = np.ones(len(rows), np.bool_)
    points, delays = 0.0, []
    for begin, end in series.windows:
        inside = (rows >= begin) & (rows <= end)
        outside &= ~inside
        if inside.any():
            first = int(rows[inside][0])
            points += profile.hit * _worth(-(end - first + 1) / (end - begin + 1)) / _worth(-1.0)
            delays.append(first - begin)
    false_alarms = rows[outside].tolist()
    points += profile.false_alarm * sum(_worth(_position(row, series.windows)) for row in false_alarms)
    points -= profile.miss * (len(series.windows) - len(delays))
    count = len(series.values) - series.probation
    return Found(points, len(series.windows), len(delays), len(false_alarms), count, tuple(delays))


def normalized(found: Found, profile: Profile) -> float:
    """Return a score in which silence is 0 and a perfect detector 100.

    Raises
    ------
    ValueError
        If there is no window: then nothing can be gained.
    """
    if not found.windows:
        raise ValueError("a score needs at least one labelled window")
    silent = -profile.miss * found.windows
    return 100 * (found.points - silent) / (profile.hit * found.windows - silent)


def _worth(position: float) -> float:
    """Return 0.99 at a window's begin (-1), 0 at its end, -1 far behind it."""
    return -1.0 if position >= _FAR else 2 / (1 + math.exp(5 * position)) - 1


def _position(row: int, windows: Sequence[tuple[int, int]]) -> float:
    before = [(begin, end) for begin, end in windows if end < row]
    if not before:
        return _FAR
    begin, end = before[-1]
    return (row - end) / max(end - begin, 1)
