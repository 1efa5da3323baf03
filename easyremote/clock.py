"""The one place that asks what time it is; everything pure gets `now_ms` as an argument."""

from __future__ import annotations

import time

__all__ = ["monotonic_s", "now_ms", "wall_ms"]


def now_ms() -> int:
    """Return the wall clock in ms since the Unix epoch, UTC."""
    return time.time_ns() // 1_000_000


def wall_ms() -> float:
    """Return the wall clock in ms since the Unix epoch, UTC, with its fraction."""
    return time.time_ns() / 1e6


def monotonic_s() -> float:
    """Return a clock in s that never goes back, for durations."""
    return time.monotonic()
