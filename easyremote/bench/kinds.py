"""The pipelines that `easyremote bench stream` measures; a worker imports this, and `BENCH_KIND` says which it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from easyremote.pipelines import Pipeline, stream
from easyremote.windows import Count, EventTime, Hopping, Max, Min, Session, Sum, Tumbling, Variance
from easyremote.windows.assigners import Assigner
from easyremote.windows.detectors import Unusual

__all__ = ["KINDS", "SINK", "SOURCE", "TWIN"]

SOURCE, TWIN, SINK = "bench.readings", "bench.twins", "bench.results"
"""Topics: what is read, its like for joins, results."""
_TYPES: Mapping[str, type] = {"device_id": str, "value": float}

_readings, _twins = (
    stream(topic, types=_TYPES, partitioned_by=("device_id",)).key_by("device_id") for topic in (SOURCE, TWIN)
)


def _windows(windows: Assigner) -> Pipeline:
    return (
        _readings.window(windows, idle="1h")
        .aggregate(count=Count(), sum=Sum("value"), min=Min("value"), max=Max("value"), variance=Variance("value"))
        .to(SINK, name="bench")
    )


KINDS: Mapping[str, Callable[[], Pipeline]] = {
    "tumbling 10 s": lambda: _windows(Tumbling("10s")),
    "hopping 60 s by 10 s": lambda: _windows(Hopping("60s", "10s")),
    "sessions": lambda: _windows(Session("5s")),
    "interval join": lambda: _readings.join(_twins, "500ms", event_time=EventTime("1s", "1h", "partition")).to(
        SINK, name="bench"
    ),
    "detector": lambda: _readings.detect(Unusual()).to(SINK, name="bench"),
}

if "BENCH_KIND" in os.environ:
    KINDS[os.environ["BENCH_KIND"]]()
