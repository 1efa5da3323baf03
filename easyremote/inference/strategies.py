"""The rules by which a node is chosen among those that are alive and offer the function. Pure.

Each rule gives every candidate a number; the one with the lowest is chosen, and among equals any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyremote.inference.load import NodeLoad
    from easyremote.topics.records import Heartbeat

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "Candidate", "Choice", "Rule"]

DEFAULT_STRATEGY = "least_wait"
_BEST_FEW = 1.25
_NEVER = float("inf")


@dataclass(frozen=True)
class Choice:
    """Where a call goes."""

    node_id: str
    pool: str
    partition: int


class Candidate:
    """A live node as one function sees it, until the next heartbeat.

    Parameters
    ----------
    heartbeat : Heartbeat
        The node's last.
    load : NodeLoad
        What it has to do.
    cost_ms : float
        What a call of the function costs there, with loading its model if it is not in memory, ms.
    holds_model : bool
        Whether the function's model is in the node's memory.
    """

    __slots__ = ("choices", "cost_ms", "heartbeat", "holds_model", "load", "turn")

    def __init__(self, heartbeat: Heartbeat, load: NodeLoad, cost_ms: float, *, holds_model: bool) -> None:
        self.heartbeat = heartbeat
        self.load = load
        self.cost_ms = cost_ms
        self.holds_model = holds_model
        self.choices = tuple(
            Choice(heartbeat.node_id, heartbeat.pool or "general", number) for number in heartbeat.partitions
        )
        self.turn = 0
        """When its turn was last, for `round_robin`; 0: never."""


Rule = Callable[[Sequence[Candidate], float], list[float]]


def _round_robin(candidates: Sequence[Candidate], _now_ms: float) -> list[float]:
    return [one.turn for one in candidates]


def _least_connections(candidates: Sequence[Candidate], now_ms: float) -> list[float]:
    return [one.load.in_flight(now_ms) for one in candidates]


def _resource_aware(candidates: Sequence[Candidate], now_ms: float) -> list[float]:
    return [
        one.heartbeat.cpu_percent / 100
        + one.heartbeat.memory_percent / 100
        + one.heartbeat.mean_response_s / 10
        + one.load.in_flight(now_ms) / 10
        for one in candidates
    ]


def _model_affinity(candidates: Sequence[Candidate], now_ms: float) -> list[float]:
    if not any(one.holds_model for one in candidates):
        return _resource_aware(candidates, now_ms)
    return [one.load.in_flight(now_ms) if one.holds_model else _NEVER for one in candidates]


def least_wait(candidates: Sequence[Candidate], now_ms: float) -> list[float]:
    """Rank by when a call is begun, ms, among the few where it is expected to be finished soonest.

    It is finished after what is in flight times what each costs, and its own cost. By what is known of either, a
    quarter more is as good; among these an idle node is sure to begin at once, and the quick one is left to the next
    call. See `docs/decisions/0008-balancing.md`.
    """
    # Whole calls: that one is half done is not counted, which would give the slow nodes the next one too early.
    waits = []
    finished = []
    for one in candidates:
        load = one.load
        wait = load.wait_then_ms - (now_ms - load.then_ms) * load.drain
        if wait > 0.0:
            each_ms = load.each_ms
            waits.append(wait)
            finished.append(one.cost_ms - -wait // each_ms * each_ms)
        else:
            waits.append(0.0)
            finished.append(one.cost_ms)
    limit = min(finished) * _BEST_FEW
    return [wait if end <= limit else _NEVER for wait, end in zip(waits, finished, strict=True)]


STRATEGIES: dict[str, Rule] = {
    "round_robin": _round_robin,
    "least_connections": _least_connections,
    "resource_aware": _resource_aware,
    "model_affinity": _model_affinity,
    "least_wait": least_wait,
}
