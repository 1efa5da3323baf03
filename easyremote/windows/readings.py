"""Readings as columns: what a batch of records is turned into once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Readings"]


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one partition, in the order of the log.

    Parameters
    ----------
    keys : sequence of (str, str)
        Device and metric of each of n readings.
    values : ndarray of float64, shape (n,)
        Each finite, in the metric's own unit.
    event_ms : ndarray of int64, shape (n,)
        Event time, ms since the Unix epoch, UTC, 0 or more and below 2**48.
    offsets : ndarray of int64, shape (n,)
        Offset of each reading's record.
    """

    keys: Sequence[tuple[str, str]]
    values: npt.NDArray[np.float64]
    event_ms: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
