"""Whether what a heartbeat says of a pool can be: its nodes are a group, and the broker knows who holds what there."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from easyremote.clock import monotonic_s
from easyremote.errors import TopicError

if TYPE_CHECKING:
    from easyremote.topics.admin import Held

__all__ = ["Pools"]

log = structlog.get_logger(__name__)

_GOOD_S = 5.0
"""For how long the broker's word on who holds what counts, and how long its answer is waited for."""
_AGAIN_S = 0.5
"""Between two questions for a pool of which something is claimed that is not known: about a heartbeat."""
_SILENT_S = 2.0
"""A question without an answer for so long: the broker does not say."""
_BURST, _BURST_S = 20, 2.0
"""Most questions altogether in so many seconds: forged heartbeats may name a new pool each, and the others are many."""
_MOST_POOLS = 1_000


@dataclass
class _Pool:
    held: Held | None = field(default_factory=dict)
    """Partitions that each member held whenever it was asked for, while it has been one; None: no saying."""
    asked_s: float = float("-inf")


class Pools:
    """Knows which partitions of which pool a node serves; used by several threads.

    Anybody may write a heartbeat. One that names partitions which no member of the pool's group holds would draw calls
    to where nobody reads them; one that names those of another node, to where they may be for nobody. A node's client
    has the node's id, which is how the group names its members.

    Parameters
    ----------
    ask : callable
        `(pool, told)`: has `told` called, on any thread, with the partitions that each member of the pool's group
        holds, or with why that cannot be known.
    answered : callable
        `(pool)`: told when it is known.
    clock : callable, optional
        The monotonic clock, s.
    """

    def __init__(
        self,
        ask: Callable[[str, Callable[[Held | TopicError], None]], None],
        answered: Callable[[str], None] = lambda _pool: None,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._ask = ask
        self._answered = answered
        self._clock = clock
        self._pools: OrderedDict[str, _Pool] = OrderedDict()
        self._asked_s: deque[float] = deque([float("-inf")], maxlen=_BURST)
        self._changed = threading.Condition()
        self._open: set[str] = set()

    def served(self, pool: str, node_id: str, claimed: Iterable[int]) -> list[int]:
        """Return those of the partitions of a pool that a node claims which it serves, as far as that is known.

        It waits for nothing: of a node that was never heard of there is none until the broker has said who is there.
        Where the broker will not say, all count.
        """
        claimed = list(claimed)
        now_s = self._clock()
        with self._changed:
            known = self._pools.get(pool)
            age_s = float("inf") if known is None else now_s - known.asked_s
            if known is not None and pool in self._open and age_s >= _SILENT_S:
                _believe(pool, known, f"the broker has not said for {age_s:.1f} s")
            is_known = known is not None and (known.held is None or _of(known.held, node_id).issuperset(claimed))
            is_free = len(self._asked_s) < _BURST or now_s - self._asked_s[0] >= _BURST_S
            asks = is_free and age_s >= (_GOOD_S if is_known or pool in self._open else _AGAIN_S)
            if asks:
                known = self._pools.setdefault(pool, _Pool())
                known.asked_s = now_s
                self._asked_s.append(now_s)
                self._pools.move_to_end(pool)
                self._open.add(pool)
                while len(self._pools) > _MOST_POOLS:
                    self._open.discard(self._pools.popitem(last=False)[0])
        if asks:
            self._ask(pool, lambda told: self._learn(pool, told))
        with self._changed:
            held: Held | None = {} if known is None else known.held
        return claimed if held is None else [number for number in claimed if number in _of(held, node_id)]

    def wait_answered(self, timeout_s: float) -> bool:
        """Wait until nothing that was asked is open, 2 s at most; say whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, min(timeout_s, _SILENT_S))

    def _learn(self, pool: str, told: Held | TopicError) -> None:
        with self._changed:
            known = self._pools.setdefault(pool, _Pool())
            if not isinstance(told, TopicError):
                # While partitions move some are nobody's for a moment: they count while their node is a member.
                before = known.held or {}
                known.held = {one: numbers | _of(before, one) for one, numbers in told.items()}
            else:
                _believe(pool, known, str(told))
        self._answered(pool)
        with self._changed:
            self._open.discard(pool)
            self._changed.notify_all()


def _of(held: Held, node_id: str) -> frozenset[int]:
    return held.get(node_id, frozenset())


def _believe(pool: str, known: _Pool, error: str) -> None:
    if known.held is not None and not known.held:
        log.info("who serves a pool cannot be known: its heartbeats are believed", pool=pool, error=error)
        known.held = None
