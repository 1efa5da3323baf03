"""Chooses the node that takes a call, and so the partition of `inference.<pool>` that this node holds. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easyremote.errors import InvalidArguments
from easyremote.inference.affinity import Ring, bound
from easyremote.inference.load import NodeLoad
from easyremote.inference.strategies import DEFAULT_STRATEGY, STRATEGIES, Candidate, Choice

if TYPE_CHECKING:
    from easyremote.topics.records import Heartbeat

__all__ = ["Balancer", "Choice"]

_PARTITION_MS = 20
"""How long the calls for a node go to the same one of its partitions, ms."""
_UNKNOWN_COST_MS = 1.0
_UNKNOWN_LOAD_MS = 10_000.0
"""Of a model that no node has loaded yet, ms: longer than any wait that is worth it."""
_ROUND_TRIP_MS = 5.0
"""What a call and its reply spend on their way, ms, until replies have shown it."""
_NEWEST = 0.05
"""Weight of the newest reply in the round trip that is learned."""
_MOST_ROUND_TRIP_MS = 250.0
_MOST_RINGS = 64
_MOST_FUNCTIONS = 100_000


@dataclass
class _Node:
    heartbeat: Heartbeat
    seen_ms: float
    load: NodeLoad = field(default_factory=NodeLoad)
    functions: frozenset[str] = frozenset()
    turns: dict[str, int] = field(default_factory=dict)
    """When each function's turn was last here, by `round_robin`."""


class Balancer:
    """Knows the nodes by their heartbeats and chooses among those that are alive.

    Calls in flight are counted here between heartbeats (see `NodeLoad`).

    Parameters
    ----------
    timeout_ms : int
        A node whose last heartbeat is older gets no call.
    seed : int, optional
        Of the random choice among equals, so that several routers do not herd.
    default : str
        The strategy of calls that ask for none.
    by_function : mapping of str to str, optional
        The strategy of some functions' calls instead of `default`.
    """

    def __init__(
        self,
        timeout_ms: int,
        seed: int | None = None,
        *,
        default: str = DEFAULT_STRATEGY,
        by_function: Mapping[str, str] | None = None,
    ) -> None:
        self._timeout_ms = timeout_ms
        self._default = default
        self._by_function = dict(by_function or {})
        self._nodes: dict[str, _Node] = {}
        self._offered: set[str] = set()
        self._eligible: dict[tuple[str, str | None, str | None], tuple[float, list[Candidate]]] = {}
        self._rings: dict[frozenset[str], Ring] = {}
        self._turn = 0
        self._round_trip_ms = _ROUND_TRIP_MS
        self._random = random.Random(seed)  # noqa: S311  # breaks ties, guards nothing

    def update(self, heartbeat: Heartbeat, now_ms: float) -> None:
        """Take a heartbeat in; `now_ms` is when it arrived, so clocks of other machines do not matter."""
        self._eligible.clear()
        node = self._nodes.get(heartbeat.node_id)
        if node is None:
            node = self._nodes[heartbeat.node_id] = _Node(heartbeat, now_ms)
        node.heartbeat, node.seen_ms, node.functions = heartbeat, now_ms, frozenset(heartbeat.functions)
        node.load.beat(heartbeat, now_ms, self._round_trip_ms)
        if len(self._offered) < _MOST_FUNCTIONS:  # ever offered; anybody may write a heartbeat
            self._offered |= node.functions

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

    def serves(self, function: str, now_ms: float, target: str | None = None, model: str | None = None) -> bool:
        """Say whether a live node offers the function: the target, where one is named, and with the model."""
        return bool(self._candidates(function, target, model, now_ms))

    def done(
        self, node_id: str, now_ms: float, *, in_flight: int | None = None, round_trip_ms: float | None = None
    ) -> None:
        """Take in a reply to a call that was sent from here.

        Parameters
        ----------
        node_id : str
            Where the call was sent.
        now_ms : float
            When the reply came, by the same clock as `update`'s.
        in_flight : int, optional
            The calls in flight at that node when it replied, if it said so.
        round_trip_ms : float, optional
            What this call and its reply spent on their way: not waiting at the node, and not being run.
        """
        if round_trip_ms is not None and 0 <= round_trip_ms <= _MOST_ROUND_TRIP_MS:
            self._round_trip_ms += _NEWEST * (round_trip_ms - self._round_trip_ms)
        node = self._nodes.get(node_id)
        if node is not None:
            node.load.replied(now_ms, in_flight, self._round_trip_ms)

    def choose(  # noqa: PLR0913  # what a call may ask for
        self,
        function: str,
        now_ms: float,
        *,
        strategy: str | None = None,
        target: str | None = None,
        model: str | None = None,
        affinity_key: str | None = None,
        avoid: str | None = None,
    ) -> Choice | None:
        """Choose the node for a call and count the call as sent.

        Parameters
        ----------
        function : str
            What is called.
        now_ms : float
            By the same clock as `update`'s.
        strategy : str, optional
            One of spec §4; the function's or the default one if unset.
        target : str, optional
            This node and no other.
        model : str, optional
            Only a node that answers the function with this model.
        affinity_key : str, optional
            Calls of one key go to one node, while it is alive and not overloaded; the strategy does not matter then.
        avoid : str, optional
            The node on which the call failed: another one, if any other is alive.

        Returns
        -------
        Choice or None
            None if no live node offers the function.

        Raises
        ------
        InvalidArguments
            If there is no such strategy.
        """
        candidates = self._candidates(function, target, model, now_ms)
        if not candidates:
            return None
        if avoid is not None and len(candidates) > 1:
            candidates = [one for one in candidates if one.heartbeat.node_id != avoid]
        if len(candidates) == 1:
            chosen = candidates[0]
        elif affinity_key is not None:
            chosen = self._by_key(affinity_key, candidates, now_ms)
        else:
            chosen = self._by_strategy(function, strategy, candidates, now_ms)
        chosen.load.sent(now_ms)
        # One partition for a while: the client sends a request to the broker for each partition, so calls that go
        # to the same one travel together.
        return chosen.choices[int(now_ms) // _PARTITION_MS % len(chosen.choices)]

    def _by_strategy(
        self, function: str, strategy: str | None, candidates: list[Candidate], now_ms: float
    ) -> Candidate:
        name = strategy or self._by_function.get(function) or self._default
        rule = STRATEGIES.get(name)
        if rule is None:
            raise InvalidArguments(f"strategy {name!r} is none of {', '.join(STRATEGIES)}")
        scores = rule(candidates, now_ms)
        lowest = min(scores)
        best = [one for one, score in zip(candidates, scores, strict=True) if score == lowest]
        chosen = best[0] if len(best) == 1 else best[int(self._random.random() * len(best))]
        if name == "round_robin":
            self._turn += 1
            chosen.turn = self._nodes[chosen.heartbeat.node_id].turns[function] = self._turn
        return chosen

    def _by_key(self, key: str, candidates: list[Candidate], now_ms: float) -> Candidate:
        by_id = {one.heartbeat.node_id: one for one in candidates}
        loads = {node_id: one.load.in_flight(now_ms) for node_id, one in by_id.items()}
        most = bound(list(loads.values()))
        # There is always one: were all at the bound, their sum would exceed it times their number.
        return by_id[next(node_id for node_id in self._ring(frozenset(by_id)).walk(key) if loads[node_id] < most)]

    def _ring(self, node_ids: frozenset[str]) -> Ring:
        ring = self._rings.get(node_ids)
        if ring is None:
            if len(self._rings) >= _MOST_RINGS:
                self._rings.clear()
            ring = self._rings[node_ids] = Ring(node_ids)
        return ring

    def _candidates(self, function: str, target: str | None, model: str | None, now_ms: float) -> list[Candidate]:
        # Between two heartbeats the answer stays the same until the first of the nodes falls silent.
        known = self._eligible.get((function, target, model))
        if known is not None and now_ms <= known[0]:
            return known[1]
        live = [
            node
            for node in self._nodes.values()
            if now_ms - node.seen_ms <= self._timeout_ms
            and function in node.functions
            and node.heartbeat.partitions
            and (target is None or node.heartbeat.node_id == target)
            and (model is None or node.heartbeat.function_models.get(function) == model)
        ]
        if not live:
            return []
        candidates = self._as_seen_by(function, live)
        self._eligible[function, target, model] = (min(node.seen_ms for node in live) + self._timeout_ms, candidates)
        return candidates

    def _as_seen_by(self, function: str, live: list[_Node]) -> list[Candidate]:
        costs = [node.heartbeat.cost_ms[function] for node in live if function in node.heartbeat.cost_ms]
        usual_ms = sum(costs) / len(costs) if costs else _UNKNOWN_COST_MS
        load_ms = self._model_load_ms(function, live)
        candidates = []
        for node in live:
            beat = node.heartbeat
            model = beat.function_models.get(function)
            holds = model is not None and any(one.name == model and one.loaded for one in beat.models)
            cost_ms = beat.cost_ms.get(function, usual_ms) + (load_ms if model is not None and not holds else 0.0)
            if costs and not beat.cost_ms:
                node.load.assume(usual_ms)
            candidate = Candidate(beat, node.load, cost_ms, holds_model=holds)
            candidate.turn = node.turns.get(function, 0)
            candidates.append(candidate)
        return candidates

    def _model_load_ms(self, function: str, live: list[_Node]) -> float:
        known = [
            one.load_s * 1_000
            for node in live
            for one in node.heartbeat.models
            if one.loaded and one.load_s > 0 and one.name == node.heartbeat.function_models.get(function)
        ]
        return sum(known) / len(known) if known else _UNKNOWN_LOAD_MS
