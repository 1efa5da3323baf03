"""A stream processor: the statistics of the contract as functions, over what it has been given."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import msgspec

from easyremote.windows.batches import aggregates, described, joined, metric

__all__ = ["StreamProcessor"]

_KEPT_WINDOWS = 5
_FIRST_WINDOW_MS = 60_000
_MOST_ITEMS = 100_000
_MOST_BYTES = 64 * 1024 * 1024
"""As JSON."""
_LONGEST_MS = 24 * 3_600_000
"""One caller's long window keeps everybody's items."""

_encode = msgspec.json.Encoder().encode


class StreamProcessor:
    """Answers questions about batches, and about the windows of what it has seen.

    What it has seen is kept for five lengths of the longest time window that it is asked for (a minute to begin with, a
    day at most; until it was not asked for in five lengths), 100,000 items and 64 MiB of JSON at most, in this process:
    a call that asks for windows goes to the same processor (`target`, or an `affinity_key`) as those that brought the
    items. Callable from several threads.

    Parameters
    ----------
    processor_id : str
        Named in its results.
    clock : callable
        `() -> int`: the wall clock, ms since the Unix epoch.

    Examples
    --------
    >>> processor = StreamProcessor("stream_001", lambda: 1_000)
    >>> processor.process_stream_data([1, "two"])["batch_size"]
    2
    >>> processor.window_aggregation("count", 10)["type_distribution"]
    {'numeric': 1, 'text': 1}
    """

    def __init__(self, processor_id: str, clock: Callable[[], int]) -> None:
        self.processor_id = processor_id
        self._clock = clock
        self._seen: deque[tuple[int, Any]] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._longest_ms = _FIRST_WINDOW_MS
        self._asked_ms = 0
        self._processed = 0
        self._errors = 0
        self._under_way = 0
        self._lock = threading.Lock()

    def process_stream_data(self, data_batch: list[Any]) -> dict[str, Any]:
        """Describe each item of a batch, and keep it for the windows.

        Parameters
        ----------
        data_batch : list
            Anything that JSON holds.

        Returns
        -------
        dict
            `processor_id`, `batch_size`, `processing_time` (s) and `results`: of each item `original`,
            `processed_time` (ms), `processor_id`, `type` (`dict`, `numeric`, `text`, `unknown`) and what is said of its
            type; of one that fails `error` and `original`, in its place.
        """
        started = self._clock()
        with self._lock:
            self._under_way += len(data_batch)
        results: list[dict[str, Any]] = []
        good: list[tuple[int, Any]] = []
        for item in data_batch:
            now_ms = self._clock()
            try:
                told = described(item)
            except (OverflowError, ValueError) as error:
                results.append({"error": str(error), "original": item})
            else:
                origin = {"original": item, "processed_time": now_ms, "processor_id": self.processor_id}
                results.append(origin | told)
                good.append((now_ms, item))
        with self._lock:
            self._under_way -= len(data_batch)
            self._processed += len(good)
            self._errors += len(data_batch) - len(good)
            for came in good:
                self._seen.append(came)
                self._sizes.append(len(_encode(came[1])))
                self._bytes += self._sizes[-1]
            self._drop_old()
        return {
            "processor_id": self.processor_id,
            "batch_size": len(data_batch),
            "results": results,
            "processing_time": (self._clock() - started) / 1000,
        }

    def window_aggregation(self, window_type: str, window_size: float) -> dict[str, Any]:
        """Aggregate the newest of what this processor has seen.

        Parameters
        ----------
        window_type : {"time", "count"}
            By the time at which items came, or by their number.
        window_size : float
            Seconds, or items; positive.

        Returns
        -------
        dict
            `count`, `numeric_count`, `window_start`, `window_end` (ms), `type_distribution`, and of the numbers (an
            item itself, or a dict's `value`) `sum`, `average`, `min`, `max`, `median`, `variance`, `quantiles`; of an
            empty window `{"count": 0, "message": "no_data"}`.

        Raises
        ------
        ValueError
            If there is no such type, or the size is not positive, or longer than a day.
        """
        if window_type not in {"time", "count"}:
            raise ValueError(f"unknown window type {window_type!r}: use 'time' (seconds) or 'count' (items)")
        if not 0 < window_size < math.inf:
            raise ValueError(f"a window of {window_size!r} is not possible: it must be positive and finite")
        if window_type == "time" and window_size * 1000 > _LONGEST_MS:
            raise ValueError(f"a window of {window_size:g} s is too long: {_LONGEST_MS // 1000} s is the longest")
        with self._lock:
            if window_type == "count":
                size = min(int(window_size) or 1, len(self._seen))
                return aggregates(list(islice(self._seen, len(self._seen) - size, None)))
            size_ms = round(window_size * 1000)
            self._drop_old()
            if size_ms >= self._longest_ms:
                self._longest_ms, self._asked_ms = size_ms, self._clock()
            now_ms = self._clock()
            return aggregates([one for one in self._seen if one[0] > now_ms - size_ms], (now_ms - size_ms, now_ms))

    def real_time_analytics(self, data_stream: list[Any], metric_type: str) -> dict[str, Any]:
        """Say something about points, the oldest first; what is no number among them is passed over.

        Parameters
        ----------
        data_stream : list
            Finite numbers, and whatever else JSON holds.
        metric_type : {"average", "trend", "anomaly"}
            `average`: `average`, `count`, `window_size`, `min`, `max` of the last 10. `trend`: of the differences of
            the last 10 `trend` (increasing where more rise than fall, decreasing where fewer do, stable; under 3 points
            insufficient_data, under 3 numbers insufficient_numeric_data), `change_points` (their number), `confidence`
            (0 to 1: by how much one direction outnumbers the other, as a share of them) and `average_change`.
            `anomaly`: whether the last point is more than 2 population deviations from the mean of all: `anomaly`,
            `z_score` (how many, without a sign), `z_score_excluding_latest` (by mean and deviation of the points before
            it; the better one of few points), `latest_value`, `mean`, `std_dev`, `threshold`; under 5 numbers `anomaly`
            (false) and `reason`.

        Raises
        ------
        ValueError
            If there is no such metric, or a number is not finite.
        WindowError
            If the points are too large for it.
        """
        return metric(data_stream, metric_type)

    def stream_join(self, stream_a: list[Any], stream_b: list[Any], join_key: str) -> dict[str, Any]:
        """Join two batches by a key: `joined_count`, `stream_a_size`, `stream_b_size`, `join_key`, `results`.

        Each of the results is `{"stream_a", "stream_b", "join_key", "join_value"}`; what is no object or lacks the key
        is passed over.

        Raises
        ------
        WindowError
            If there would be more than 100,000 pairs.
        """
        results = joined(stream_a, stream_b, join_key)
        return {
            "joined_count": len(results),
            "stream_a_size": len(stream_a),
            "stream_b_size": len(stream_b),
            "join_key": join_key,
            "results": results,
        }

    def get_stream_stats(self) -> dict[str, Any]:
        """Return what this processor has done, and what it keeps.

        `stats` has `processed` and `errors`, in items; `queue_sizes` `input`, items under way, and `output`, items kept
        for windows; `window_stats` `kept_items`, `oldest_ms` (when the oldest of them came) and `kept_s`, how long they
        are kept.
        """
        with self._lock:
            self._drop_old()
            return {
                "processor_id": self.processor_id,
                "stats": {"processed": self._processed, "errors": self._errors},
                "queue_sizes": {"input": self._under_way, "output": len(self._seen)},
                "window_stats": {
                    "kept_items": len(self._seen),
                    "oldest_ms": self._seen[0][0] if self._seen else None,
                    "kept_s": _KEPT_WINDOWS * self._longest_ms / 1000,
                },
            }

    def functions(self) -> Sequence[Callable[..., dict[str, Any]]]:
        """Return what it offers to callers."""
        return (
            self.process_stream_data,
            self.window_aggregation,
            self.real_time_analytics,
            self.stream_join,
            self.get_stream_stats,
        )

    def _drop_old(self) -> None:
        now_ms = self._clock()
        if now_ms - self._asked_ms > _KEPT_WINDOWS * self._longest_ms:
            self._longest_ms = _FIRST_WINDOW_MS
        oldest = now_ms - _KEPT_WINDOWS * self._longest_ms
        while self._seen and (self._seen[0][0] < oldest or len(self._seen) > _MOST_ITEMS or self._bytes > _MOST_BYTES):
            self._seen.popleft()
            self._bytes -= self._sizes.popleft()
