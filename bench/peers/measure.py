"""How every peer is measured: 100 bytes, one call at a time, then 256 outstanding. Standard library only."""

from __future__ import annotations

import json
import statistics
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TypeVar

PAYLOAD_BYTES = 100
OUTSTANDING = 256
WARM_UP_S = 2.0
SECONDS = 6.0

Pending = TypeVar("Pending")


def measure(submit: Callable[[str], Pending], result: Callable[[Pending], object]) -> None:
    """Measure, and print one line of JSON: `p50_ms` and `calls_per_s`.

    Parameters
    ----------
    submit : callable
        Sends one echo and returns what stands for its reply.
    result : callable
        Waits for that reply and returns it.
    """

    # Each payload is another one: easyremote 2.0.2 answers what it has seen from a cache in its client.
    payloads = (f"{number:0{PAYLOAD_BYTES}d}" for number in count())

    def one_at_a_time(seconds: float) -> list[float]:
        times = []
        ends = time.perf_counter() + seconds
        while (started := time.perf_counter()) < ends:
            payload = next(payloads)
            check(payload, result(submit(payload)))
            times.append(time.perf_counter() - started)
        return times

    def outstanding(seconds: float) -> float:
        waiting: deque[tuple[str, Pending]] = deque()

        def take() -> None:
            payload, pending = waiting.popleft()
            check(payload, result(pending))

        started = time.perf_counter()
        done = 0
        while time.perf_counter() < started + seconds:
            while len(waiting) < OUTSTANDING:
                payload = next(payloads)
                waiting.append((payload, submit(payload)))
            take()
            done += 1
        took_s = time.perf_counter() - started  # what still waits is not counted
        while waiting:
            take()
        return done / took_s

    one_at_a_time(WARM_UP_S)
    p50_ms = statistics.median(one_at_a_time(SECONDS)) * 1000
    outstanding(WARM_UP_S)
    print(json.dumps({"p50_ms": p50_ms, "calls_per_s": outstanding(SECONDS)}), flush=True)


def check(payload: str, said: object) -> None:
    """Refuse an answer that is not the payload."""
    if said != payload:
        raise SystemExit(f"an echo of {payload!r} came back as {said!r}")
