"""Follows `nodes`: every process that routes calls sees every heartbeat."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from easyremote.clock import now_ms, wall_ms
from easyremote.errors import TopicError
from easyremote.inference.balancer import Balancer, Choice
from easyremote.inference.pools import Pools
from easyremote.tally import tally
from easyremote.topics.admin import Held, TopicAdmin
from easyremote.topics.catalog import NODES, inference_group
from easyremote.topics.follower import follow_records
from easyremote.topics.limits import shortened
from easyremote.topics.records import Heartbeat, Reply, decode_heartbeat

if TYPE_CHECKING:
    from easyremote.inference.session import CallOptions
    from easyremote.settings import Settings
    from easyremote.topics.wire import Call

__all__ = ["NodeWatch"]


_MAX_DIGITS = 9
_MOST_NODES = 10_000


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
        self._settings = settings
        self._admin: TopicAdmin | None = None
        self._unsure: dict[str, tuple[Heartbeat, int]] = {}
        self._pools = Pools(self._ask, partial(self._look_again, answered=True))
        self._follower = follow_records(settings, NODES, decode_heartbeat, self._take, changed)
        self._started = True

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until every heartbeat that stood in the topic has been read; say whether it was."""
        return self._follower.wait_caught_up(timeout_s) and self._pools.wait_answered(timeout_s)

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

    def _is_live(self) -> bool:
        return self._started and self._follower.caught_up

    def _ask(self, pool: str, told: Callable[[Held | TopicError], None]) -> None:
        if self._admin is None:
            self._admin = TopicAdmin(self._settings)
        self._admin.ask_held(inference_group(self._settings.namespace, pool), told)

    def _look_again(self, pool: str, *, answered: bool = False) -> None:
        with self._lock:
            mine = {node_id: one for node_id, one in self._unsure.items() if one[0].pool == pool}
        for node_id, (beat, _) in mine.items():
            served = self._pools.served(pool, node_id, beat.partitions)
            if answered and len(served) < len(beat.partitions):
                others = sorted(set(beat.partitions) - set(served))[:10]
                reason = f"{node_id!r} does not serve {others} of {pool!r}"
                tally.pass_over(f"partitions of {node_id} in {NODES}", 0, None, reason)
            with self._lock:
                known = self._heartbeats.get(node_id)
                if served and known is not None and known[0].sent_ms == beat.sent_ms:
                    known = structs.replace(beat, partitions=served), known[1]
                    self._balancer.update(*known)
                    self._heartbeats[node_id] = known

    def _checked(self, node_id: str, beat: Heartbeat, sent_ms: int) -> Heartbeat:
        """Return a heartbeat with the partitions that its node serves; it may be anybody's.

        Raises
        ------
        ValueError
            If it stands under another's key: its tombstone would not take it out.
        """
        if beat.node_id != node_id:
            raise ValueError(f"the heartbeat of {beat.node_id!r} has the key {shortened(node_id, 100)!r}")
        is_old = not self._is_live() and now_ms() - sent_ms > self._timeout_ms
        if beat.pool is None or not beat.partitions or is_old:
            return beat
        served = self._pools.served(beat.pool, node_id, beat.partitions)
        with self._lock:
            if len(served) == len(beat.partitions):
                self._unsure.pop(node_id, None)
                return beat
            if len(self._unsure) < _MOST_NODES:
                self._unsure[node_id] = beat, sent_ms
        return structs.replace(beat, partitions=served)

    def _take(self, node_id: str, beat: Heartbeat | None, sent_ms: int) -> None:
        if beat is not None:
            beat = self._checked(node_id, beat, sent_ms)
        with self._lock:
            if beat is None:
                self._balancer.forget(node_id)
                self._heartbeats.pop(node_id, None)
                self._unsure.pop(node_id, None)
                return
            # What stood there at the start may be of a node long dead: its age counts, by the broker's clock.
            # What comes later has just been sent, whatever the clocks of other machines say.
            is_new = self._is_live()
            seen_ms = now_ms() if is_new else min(now_ms(), sent_ms)
            self._balancer.update(beat, seen_ms)
            if node_id not in self._heartbeats and len(self._heartbeats) >= _MOST_NODES:
                gone = min(self._heartbeats, key=lambda one: self._heartbeats[one][1])
                self._balancer.forget(gone)
                del self._heartbeats[gone]
            self._heartbeats[node_id] = (beat, seen_ms)
            is_unsure = node_id in self._unsure
        if is_unsure and beat.pool is not None:
            self._look_again(beat.pool)  # the answer may have come while this was taken in


def _is_count(header: bytes) -> bool:
    return header.isdigit() and len(header) < _MAX_DIGITS
