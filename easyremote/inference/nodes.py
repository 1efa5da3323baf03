"""Follows `nodes`: every process that routes calls sees every heartbeat."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from easyremote.clock import now_ms, wall_ms
from easyremote.inference.balancer import Balancer, Choice
from easyremote.topics.catalog import NODES
from easyremote.topics.follower import follow_records
from easyremote.topics.records import Heartbeat, Reply, decode_heartbeat

if TYPE_CHECKING:
    from easyremote.inference.session import CallOptions
    from easyremote.settings import Settings
    from easyremote.topics.wire import Call

__all__ = ["NodeWatch"]


_MAX_DIGITS = 9


class NodeWatch:
    """A balancer that is kept up to date by the nodes' heartbeats; safe to use from several threads.

    Parameters
    ----------
    settings : Settings
        Broker, and from which age of its heartbeat on a node is dead.
    changed : callable, optional
        Called on the follower's thread after heartbeats came in.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    """

    def __init__(self, settings: Settings, changed: Callable[[], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._balancer = Balancer(settings.node_timeout_ms, default=settings.strategy, by_function=settings.strategies)
        self._heartbeats: dict[str, tuple[Heartbeat, int]] = {}
        self._timeout_ms = settings.node_timeout_ms
        self._started = False
        self._follower = follow_records(settings, NODES, decode_heartbeat, self._take, changed)
        self._started = True

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until every heartbeat that stood in the topic has been read; say whether it was."""
        return self._follower.wait_caught_up(timeout_s)

    def choose(self, call: Call) -> Choice | None:
        """Choose the node for a call, or None if no live one offers its function."""
        with self._lock:
            return self._balancer.choose(
                call.function,
                wall_ms(),
                strategy=call.strategy,
                target=call.target,
                model=call.model,
                affinity_key=call.affinity_key,
                avoid=call.avoid,
            )

    def choose_for(self, function: str, options: CallOptions) -> Choice | None:
        """Do as `choose` does, for a call that is not made yet.

        Raises
        ------
        InvalidArguments
            If there is no such strategy.
        """
        with self._lock:
            return self._balancer.choose(
                function,
                wall_ms(),
                strategy=options.strategy,
                target=options.target,
                model=options.model,
                affinity_key=options.affinity_key,
            )

    def serves(self, call: Call) -> bool:
        """Say whether a live node would take the call."""
        with self._lock:
            return self._balancer.serves(call.function, wall_ms(), call.target, call.model)

    def done(self, node_id: str, sent_ms: float, reply: Reply | None, in_flight: bytes | None) -> None:
        """Count a reply to a call that was sent from here, or that none is waited for any longer.

        Parameters
        ----------
        node_id : str
            Where the call was sent.
        sent_ms : float
            When, ms since the epoch by this process's clock.
        reply : Reply or None
            What came.
        in_flight : bytes or None
            The header in which a node says how many calls it still has in flight.
        """
        now = wall_ms()
        with self._lock:
            if reply is None or reply.node_id != node_id or in_flight is None or not _is_count(in_flight):
                self._balancer.done(node_id, now)
                return
            on_its_way_ms = now - sent_ms - reply.timings_ms.waited - reply.timings_ms.executed
            self._balancer.done(node_id, now, in_flight=int(in_flight), round_trip_ms=on_its_way_ms)

    def declare(self, functions: Sequence[str]) -> None:
        """Say that these functions exist, though no node may offer them just now."""
        with self._lock:
            self._balancer.declare(functions)

    def knows(self, function: str) -> bool:
        """Say whether any node has ever offered the function, or it was declared."""
        with self._lock:
            return self._balancer.knows(function)

    def live(self) -> list[Heartbeat]:
        """Return the last heartbeat of each worker that is alive, by its id."""
        now = now_ms()
        with self._lock:
            return [
                beat for _, (beat, seen_ms) in sorted(self._heartbeats.items()) if now - seen_ms <= self._timeout_ms
            ]

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _take(self, node_id: str, beat: Heartbeat | None, sent_ms: int) -> None:
        with self._lock:
            if beat is None:
                self._balancer.forget(node_id)
                self._heartbeats.pop(node_id, None)
                return
            # What stood there at the start may be of a node long dead: its age counts, by the broker's clock.
            # What comes later has just been sent, whatever the clocks of other machines say.
            is_new = self._started and self._follower.caught_up
            seen_ms = now_ms() if is_new else min(now_ms(), sent_ms)
            self._balancer.update(beat, seen_ms)
            self._heartbeats[node_id] = (beat, seen_ms)


def _is_count(header: bytes) -> bool:
    return header.isdigit() and len(header) < _MAX_DIGITS
