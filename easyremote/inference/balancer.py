"""Chooses the node that takes a call, and so the partition of `inference.<pool>` that this node holds. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from easyremote.topics.records import Heartbeat

__all__ = ["Balancer", "Choice"]


_PARTITION_MS = 20
"""How long the calls for a node go to the same one of its partitions, ms."""


@dataclass(frozen=True)
class Choice:
    """Where a call goes."""

    node_id: str
    pool: str
    partition: int


@dataclass
class _Node:
    heartbeat: Heartbeat
    seen_ms: int
    sent_since: int = 0
    """Calls sent to it less replies seen from it since its last heartbeat, which counts the earlier ones."""
    turn: int = 0
    functions: frozenset[str] = field(default_factory=frozenset)

    @property
    def in_flight(self) -> int:
        return max(0, self.heartbeat.in_flight + self.sent_since)


def _round_robin(node: _Node, _function: str) -> float:
    return node.turn


def _least_connections(node: _Node, _function: str) -> float:
    return node.in_flight


def _resource_aware(node: _Node, _function: str) -> float:
    beat = node.heartbeat
    return beat.cpu_percent / 100 + beat.memory_percent / 100 + beat.mean_response_s / 10 + node.in_flight / 10


def _least_wait(node: _Node, function: str) -> float:
    cost_ms = node.heartbeat.cost_ms.get(function) or 1.0
    return (node.in_flight + 1) * cost_ms


def _model_affinity(node: _Node, function: str) -> float:
    # Every node that offers a function holds its model; those that have it in memory come first.
    loaded = any(model.loaded for model in node.heartbeat.models)
    return _resource_aware(node, function) + (0.0 if loaded or not node.heartbeat.models else 1_000.0)


_SCORES: dict[str, Callable[[_Node, str], float]] = {
    "round_robin": _round_robin,
    "least_connections": _least_connections,
    "resource_aware": _resource_aware,
    "model_affinity": _model_affinity,
    "least_wait": _least_wait,
}


class Balancer:
    """Knows the nodes by their heartbeats and chooses among those that are alive.

    In flight is counted here between heartbeats: one more for each call sent, one less for each reply seen.

    Parameters
    ----------
    timeout_ms : int
        A node whose last heartbeat is older gets no call.
    seed : int, optional
        Of the random choice among equals, so that several routers do not herd.
    """

    def __init__(self, timeout_ms: int, seed: int | None = None) -> None:
        self._timeout_ms = timeout_ms
        self._nodes: dict[str, _Node] = {}
        self._offered: set[str] = set()
        self._eligible: dict[tuple[str, str | None], tuple[int, list[_Node]]] = {}
        self._turn = 0
        self._random = random.Random(seed)  # noqa: S311  # breaks ties, guards nothing

    def update(self, heartbeat: Heartbeat, now_ms: int) -> None:
        """Take a heartbeat in; `now_ms` is when it arrived, so clocks of other machines do not matter."""
        self._eligible.clear()
        known = self._nodes.get(heartbeat.node_id)
        functions = frozenset(heartbeat.functions)
        self._offered |= functions
        if known is None:
            self._nodes[heartbeat.node_id] = _Node(heartbeat, now_ms, functions=functions)
        else:
            known.heartbeat, known.seen_ms, known.functions, known.sent_since = (
                heartbeat,
                now_ms,
                functions,
                0,
            )

    def forget(self, node_id: str) -> None:
        """Take a node out that has left."""
        self._eligible.clear()
        self._nodes.pop(node_id, None)

    def declare(self, functions: Iterable[str]) -> None:
        """Say that these functions exist, though no node may offer them just now."""
        self._offered |= set(functions)

    def knows(self, function: str) -> bool:
        """Say whether any node has ever offered the function, or it was declared."""
        return function in self._offered

    def done(self, node_id: str) -> None:
        """Count a reply that was seen from a node."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.sent_since -= 1

    def choose(
        self, function: str, now_ms: int, *, strategy: str | None = None, target: str | None = None
    ) -> Choice | None:
        """Choose the node for a call and count the call as sent.

        Parameters
        ----------
        function : str
            What is called.
        now_ms : int
            By the same clock as `update`'s.
        strategy : str, optional
            One of spec §4; `least_wait` if unset.
        target : str, optional
            This node and no other.

        Returns
        -------
        Choice or None
            None if no live node offers the function.
        """
        live = self._live(function, target, now_ms)
        if not live:
            return None
        if len(live) == 1:
            node = live[0]
        else:
            score = _SCORES[strategy or "least_wait"]
            ranked = [(score(node, function), node) for node in live]
            best = min(value for value, _ in ranked)
            node = self._random.choice([node for value, node in ranked if value == best])
        self._turn += 1
        node.turn = self._turn
        node.sent_since += 1
        partitions = node.heartbeat.partitions
        # One partition for a while: the client sends a request to the broker for each partition, so calls that go
        # to the same one travel together.
        partition = partitions[now_ms // _PARTITION_MS % len(partitions)]
        return Choice(node.heartbeat.node_id, node.heartbeat.pool or "general", partition)

    def _live(self, function: str, target: str | None, now_ms: int) -> list[_Node]:
        # Between two heartbeats the answer stays the same until the first of the nodes falls silent.
        known = self._eligible.get((function, target))
        if known is not None and now_ms <= known[0]:
            return known[1]
        live = [
            node
            for node in self._nodes.values()
            if now_ms - node.seen_ms <= self._timeout_ms
            and function in node.functions
            and node.heartbeat.partitions
            and (target is None or node.heartbeat.node_id == target)
        ]
        if live:
            self._eligible[function, target] = (min(node.seen_ms for node in live) + self._timeout_ms, live)
        return live
