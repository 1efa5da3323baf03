"""Simulates nodes of unequal speed behind the balancer itself, and compares it with one central queue."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from easyremote.bench.report import Report, step
from easyremote.inference.balancer import Balancer
from easyremote.inference.strategies import DEFAULT_STRATEGY, STRATEGIES
from easyremote.topics.records import Heartbeat

__all__ = ["Load", "Outcome", "central_queue", "main", "through_balancer"]

SPEEDS = tuple(1 + 3 * number / 7 for number in range(8))
"""Of the eight nodes, the slowest is 1."""
SLOWS_DOWN = 7
SLOWED_TO = 0.5
"""The fastest node takes twice as long from the middle of the run on."""
COST_MS = 100.0
"""Of a call at speed 1, on average."""
UTILISATION = 0.8
"""Arrivals in calls' cost, of what the nodes can do before one slows down; after it the same arrivals are 0.89."""
HEARTBEAT_MS = 500.0
TRANSIT_MS = 1.0
"""One way between router and node; the central queue has none."""
_FUNCTION = "simulated"


@dataclass(frozen=True)
class Load:
    """Calls of a simulation: when each arrives, ms, and how much longer than the average it takes."""

    arrivals_ms: Sequence[float]
    sizes: Sequence[float]

    @classmethod
    def poisson(cls, calls: int, variation: float, seed: int) -> Load:
        """Return Poisson arrivals of calls whose sizes are log-normal, `variation` being their standard deviation."""
        chance = random.Random(seed)  # noqa: S311  # a simulation
        rate = UTILISATION * sum(SPEEDS) / COST_MS
        arrivals, now = [], 0.0
        for _ in range(calls):
            now += chance.expovariate(rate)
            arrivals.append(now)
        sigma = math.sqrt(math.log(1 + variation**2))
        return cls(arrivals, [chance.lognormvariate(-sigma * sigma / 2, sigma) for _ in range(calls)])

    @property
    def slow_from_ms(self) -> float:
        """When the node slows down."""
        return self.arrivals_ms[len(self.arrivals_ms) // 2]

    def speed(self, node: int, now_ms: float) -> float:
        """Return a node's speed at a time."""
        return SPEEDS[node] * (SLOWED_TO if node == SLOWS_DOWN and now_ms >= self.slow_from_ms else 1.0)


@dataclass(frozen=True)
class Outcome:
    """Response times of a simulation, ms."""

    mean_ms: float
    p99_ms: float

    @classmethod
    def of(cls, times_ms: list[float]) -> Outcome:
        """Return the figures of a run."""
        return cls(statistics.fmean(times_ms), sorted(times_ms)[int(0.99 * len(times_ms))])


def central_queue(load: Load) -> Outcome:
    """Return the ideal: all calls wait in one queue, and the fastest free node takes the next one."""
    free = list(range(len(SPEEDS)))
    ends: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    times = []

    def take(now_ms: float) -> None:
        while waiting and free:
            node = max(free, key=lambda one: load.speed(one, now_ms))
            free.remove(node)
            call = waiting.popleft()
            end_ms = now_ms + load.sizes[call] * COST_MS / load.speed(node, now_ms)
            times.append(end_ms - load.arrivals_ms[call])
            heapq.heappush(ends, (end_ms, node))

    for call, now_ms in enumerate(load.arrivals_ms):
        while ends and ends[0][0] <= now_ms:
            end_ms, node = heapq.heappop(ends)
            free.append(node)
            take(end_ms)
        waiting.append(call)
        take(now_ms)
    while ends:
        end_ms, node = heapq.heappop(ends)
        free.append(node)
        take(end_ms)
    return Outcome.of(times)


class _Node:
    """One node: does its calls in the order in which they come, one at a time."""

    def __init__(self, number: int) -> None:
        self.name = f"node-{number}"
        self.number = number
        self.free_ms = 0.0
        self.calls: deque[float] = deque()
        """When the calls in flight came."""
        self.done = 0
        self.busy_ms = 0.0
        self.busy_before_ms = 0.0
        self.cost_ms: float | None = None

    def in_flight(self, then_ms: float) -> int:
        """Return how many calls were here a transit ago, when those that came since were not."""
        count = len(self.calls)
        for came_ms in reversed(self.calls):
            if came_ms <= then_ms:
                break
            count -= 1
        return count

    def end(self, took_ms: float) -> None:
        """Count the end of the first call, as `NodeStats` does."""
        self.calls.popleft()
        self.done += 1
        self.busy_ms += took_ms
        self.cost_ms = took_ms if self.cost_ms is None else self.cost_ms + 0.1 * (took_ms - self.cost_ms)

    def heartbeat(self, sent_ms: float) -> Heartbeat:
        """Return what the node tells of itself."""
        busy = (self.busy_ms - self.busy_before_ms) / HEARTBEAT_MS
        self.busy_before_ms = self.busy_ms
        return Heartbeat(
            node_id=self.name,
            sent_ms=int(sent_ms),
            roles=["inference"],
            ready=["inference"],
            pool="general",
            partitions=[self.number],
            functions=[_FUNCTION],
            in_flight=self.in_flight(sent_ms),
            total_requests=self.done,
            mean_response_s=self.busy_ms / self.done / 1_000 if self.done else 0.0,
            cost_ms={} if self.cost_ms is None else {_FUNCTION: self.cost_ms},
            cpu_percent=min(100.0, 100 * busy),
            memory_percent=50.0,
        )


def through_balancer(load: Load, strategy: str, routers: int, *, sees_replies: bool = True, seed: int = 1) -> Outcome:
    """Return how long calls take when each router chooses by a balancer of its own.

    Parameters
    ----------
    load : Load
        The calls; each comes to one of the routers at random.
    strategy : str
        One of spec §4.
    routers : int
        How many choose without knowing of each other.
    sees_replies : bool
        Whether replies come back to the router that sent the call, as to a client and a gateway, or to somebody
        else, as with the router of `requests`.
    seed : int
        Of everything random but the calls.
    """
    chance = random.Random(seed)  # noqa: S311  # a simulation
    balancers = [Balancer(timeout_ms=2_000, seed=chance.getrandbits(32), default=strategy) for _ in range(routers)]
    nodes = [_Node(number) for number in range(len(SPEEDS))]
    # What happens: a reply arrives (node, what it took, who sent the call, when), or a heartbeat (node).
    events: list[tuple[float, int, int, float, int, float]] = []
    for node in nodes:
        for balancer in balancers:
            balancer.update(node.heartbeat(0.0), 0.0)
        heapq.heappush(events, (chance.uniform(0.0, HEARTBEAT_MS), node.number, -1, 0.0, 0, 0.0))
    times = []

    def happen() -> None:
        now_ms, number, router, took_ms, _, sent_ms = heapq.heappop(events)
        node = nodes[number]
        if router < 0:
            for balancer in balancers:
                balancer.update(node.heartbeat(now_ms - TRANSIT_MS), now_ms)
            heapq.heappush(events, (now_ms + HEARTBEAT_MS, number, -1, 0.0, 0, 0.0))
            return
        node.end(took_ms)
        times.append(now_ms - sent_ms)
        if sees_replies:
            balancers[router].done(
                node.name, now_ms, in_flight=node.in_flight(now_ms - TRANSIT_MS), round_trip_ms=2 * TRANSIT_MS
            )

    for call, now_ms in enumerate(load.arrivals_ms):
        while events[0][0] <= now_ms:
            happen()
        router = int(chance.random() * routers)
        choice = balancers[router].choose(_FUNCTION, now_ms)
        assert choice is not None
        node = nodes[choice.partition]
        start_ms = max(node.free_ms, now_ms + TRANSIT_MS)
        took_ms = load.sizes[call] * COST_MS / load.speed(node.number, start_ms)
        node.free_ms = start_ms + took_ms
        node.calls.append(now_ms + TRANSIT_MS)
        heapq.heappush(events, (node.free_ms + TRANSIT_MS, node.number, router, took_ms, call, now_ms))
    while len(times) < len(load.arrivals_ms):
        happen()
    return Outcome.of(times)


def main(json_file: Path | None, calls: int, variation: float, seed: int) -> None:
    """Simulate, print, and write."""
    report = Report()
    load = Load.poisson(calls, variation, seed)
    ideal = _tell(report, "ideal", central_queue(load))
    for routers in (1, 3):
        suffix = "" if routers == 1 else f"_{routers}_routers"
        for strategy in STRATEGIES:
            with step(f"{strategy}, {routers} router(s)"):
                outcome = through_balancer(load, strategy, routers, seed=seed)
            _tell(report, strategy + suffix, outcome)
            report.ratios[f"{strategy}_to_ideal{suffix}"] = outcome.mean_ms / ideal.mean_ms
        with step(f"{DEFAULT_STRATEGY} by heartbeats alone, {routers} router(s)"):
            outcome = through_balancer(load, DEFAULT_STRATEGY, routers, sees_replies=False, seed=seed)
        _tell(report, f"{DEFAULT_STRATEGY}_by_heartbeats_alone{suffix}", outcome)
        report.ratios[f"{DEFAULT_STRATEGY}_by_heartbeats_alone_to_ideal{suffix}"] = outcome.mean_ms / ideal.mean_ms
    report.finish(json_file)


def _tell(report: Report, name: str, outcome: Outcome) -> Outcome:
    report.add(f"{name}_mean", outcome.mean_ms, "ms")
    report.add(f"{name}_p99", outcome.p99_ms, "ms")
    return outcome
