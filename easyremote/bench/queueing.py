"""What a model could do at best if calls cost nothing on their way: an ideal queue before it. Pure."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator

import numpy as np

__all__ = ["arrivals", "ideal_p99_s"]

_CALLS = 50_000


def arrivals(rate: float, seconds: float, *, bursty: bool) -> Iterator[float]:
    """Yield when calls are due, s from the start: evenly spaced, or with the gaps of a Poisson process.

    Examples
    --------
    >>> list(arrivals(4, 1, bursty=False))
    [0.25, 0.5, 0.75, 1.0]
    """
    chance = random.Random(2)  # noqa: S311  # the same in each run
    due = 0.0
    while True:
        due += chance.expovariate(rate) if bursty else 1 / rate
        if due > seconds:
            return
        yield due


def ideal_p99_s(rate: float, single_s: float, each_more_s: float, instances: int = 1, *, bursty: bool) -> float:
    """Return the 99th percentile of a call's time, s, where a free instance of the model takes at once all that waits.

    Parameters
    ----------
    rate : float
        Calls per second.
    single_s : float
        A pass of one call, s.
    each_more_s : float
        What each further call adds to a pass, s.
    instances : int
        How many passes run at once, none slower for it.
    bursty : bool
        As in `arrivals`.

    Examples
    --------
    >>> ideal_p99_s(10, 0.01, 0.005, bursty=False)
    0.01
    >>> ideal_p99_s(180, 0.01, 0.005, instances=2, bursty=False)
    0.01
    >>> 0.02 < ideal_p99_s(50, 0.01, 0.005, bursty=True) < 0.04
    True
    """
    due = list(arrivals(rate, _CALLS / rate, bursty=bursty))
    times: list[float] = []
    free_at, first = [0.0] * instances, 0
    while first < len(due):
        starts = max(free_at[0], due[first])
        behind = first + 1
        while behind < len(due) and due[behind] <= starts:
            behind += 1
        ends = starts + single_s + (behind - first - 1) * each_more_s
        heapq.heapreplace(free_at, ends)
        times += [ends - one for one in due[first:behind]]
        first = behind
    return round(float(np.percentile(times, 99)), 6)
