"""What a plain Faust agent with a table does with the same readings; run as `faust -A easyremote.bench.plain_faust`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import faust

_SIZE_MS = 10_000.0

app = faust.App(
    "bench-plain-faust",
    broker=f"kafka://{os.environ['EASYREMOTE_KAFKA']}",
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    datadir=os.environ["EASYREMOTE_DATA_DIR"],
)


class Reading(faust.Record, serializer="json"):
    """One reading."""

    device_id: str
    metric: str
    value: float
    timestamp_ms: int


readings = app.topic(os.environ["BENCH_TOPIC"], value_type=Reading)
windows = (
    app.Table("windows", default=lambda: (0, 0.0, float("inf"), float("-inf"), 0.0))
    .tumbling(_SIZE_MS, expires=3_600_000.0)
    .relative_to_field(Reading.timestamp_ms)  # type: ignore[arg-type]  # Faust puts a descriptor there
)


@app.agent(readings)
async def aggregate(stream: faust.StreamT[Reading]) -> None:
    """Count, sum, min, max and sum of squares of each device's window; write the rate and end when all are read."""
    expected = int(os.environ["BENCH_READINGS"])
    seen = 0
    started = time.perf_counter()
    async for reading in stream:
        if not seen:
            started = time.perf_counter()
        count, total, least, most, squares = windows[reading.device_id].value()
        value = reading.value
        windows[reading.device_id] = (
            count + 1,
            total + value,
            min(least, value),
            max(most, value),
            squares + value * value,
        )
        seen += 1
        if seen == expected:
            _finish(expected / (time.perf_counter() - started))


def _finish(rate: float) -> None:
    Path(os.environ["BENCH_RESULT"]).write_text(str(rate))
    os._exit(0)
