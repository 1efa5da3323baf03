"""What Bytewax does with the readings of `easyremote bench stream`: a tumbling window, folded, nothing kept safe."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.testing import TestingSink, run_main

EXPECTED = int(os.environ["BENCH_READINGS"])
State = tuple[int, float, float, float, float]
begun: list[float] = []


def decoded(message: Any) -> tuple[str, dict[str, Any]]:
    if not begun:
        begun.append(time.perf_counter())
    reading = json.loads(message.value)
    return reading["device_id"], reading


def further(state: State, reading: dict[str, Any]) -> State:
    count, total, least, most, squares = state
    value = reading["value"]
    return count + 1, total + value, min(least, value), max(most, value), squares + value * value


def merged(one: State, other: State) -> State:
    return (
        one[0] + other[0],
        one[1] + other[1],
        min(one[2], other[2]),
        max(one[3], other[3]),
        one[4] + other[4],
    )


def main() -> None:
    out: list[Any] = []
    flow = Dataflow("bench")
    source = KafkaSource([os.environ["EASYREMOTE_KAFKA"]], [os.environ["BENCH_TOPIC"]], tail=False, batch_size=5_000)
    readings = op.map("decode", op.input("readings", flow, source), decoded)
    clock = EventClock(
        lambda reading: datetime.fromtimestamp(reading["timestamp_ms"] / 1000, UTC),
        wait_for_system_duration=timedelta(0),
    )
    windower = TumblingWindower(length=timedelta(seconds=10), align_to=datetime(2020, 1, 1, tzinfo=UTC))
    empty: State = (0, 0.0, float("inf"), float("-inf"), 0.0)
    windows = fold_window("fold", readings, clock, windower, lambda: empty, further, merged)
    op.output("out", windows.down, TestingSink(out))
    run_main(flow)
    counted = sum(state[0] for _, (_, state) in out)
    if counted < EXPECTED * 0.99:
        raise SystemExit(f"of {EXPECTED} readings {counted} were counted")
    Path(os.environ["BENCH_RESULT"]).write_text(str(EXPECTED / (time.perf_counter() - begun[0])))


if __name__ == "__main__":
    main()
