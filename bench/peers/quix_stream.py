"""What Quix Streams does with the readings of `easyremote bench stream`: a tumbling window, reduced, at least once."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from quixstreams import Application

EXPECTED = int(os.environ["BENCH_READINGS"])
IDLE_S = 10
"""How long it waits for more when all has been read; the time of the last reading counts, not that."""
times = {"first": 0.0, "last": 0.0}
seen = [0]


def note() -> None:
    times["last"] = time.perf_counter()
    times["first"] = times["first"] or times["last"]
    seen[0] += 1


def first(reading: dict[str, Any]) -> list[float]:
    note()
    value = reading["value"]
    return [1, value, value, value, value * value]


def further(state: list[float], reading: dict[str, Any]) -> list[float]:
    note()
    count, total, least, most, squares = state
    value = reading["value"]
    return [count + 1, total + value, min(least, value), max(most, value), squares + value * value]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=os.environ["EASYREMOTE_KAFKA"],
            consumer_group=f"bench-quix-{uuid.uuid4().hex[:8]}",
            auto_offset_reset="earliest",
            state_dir=folder,
            loglevel="ERROR",
        )
        readings = app.topic(
            os.environ["BENCH_TOPIC"],
            value_deserializer="json",
            timestamp_extractor=lambda value, _headers, _time, _kind: value["timestamp_ms"],
        )
        windows = app.dataframe(readings).tumbling_window(10_000).reduce(further, first).final()
        windows.to_topic(app.topic(f"{os.environ['BENCH_TOPIC']}.quix", value_serializer="json"))
        app.run(count=EXPECTED, timeout=IDLE_S)
    if seen[0] < EXPECTED * 0.99:
        raise SystemExit(f"of {EXPECTED} readings {seen[0]} were counted")
    Path(os.environ["BENCH_RESULT"]).write_text(str(seen[0] / (times["last"] - times["first"])))


if __name__ == "__main__":
    main()
