"""Which threads have been at one step for longer than its limit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyremote.inference.jobs import Job
    from easyremote.inference.lanes import Hand

__all__ = ["StallWatch", "jobs_of"]


def jobs_of(doing: Job | Sequence[Job]) -> Sequence[Job]:
    """Return what a hand does as a sequence."""
    return doing if isinstance(doing, Sequence) else (doing,)


class StallWatch:
    """Compares what hands do from look to look, so that what they do need not ask for the time.

    Parameters
    ----------
    limit_s : callable
        `(job) -> float | None`: how long a step of it may take, s; None: as long as it likes.
    """

    def __init__(self, limit_s: Callable[[Job], float | None]) -> None:
        self._limit_s = limit_s
        self._seen: dict[Hand, tuple[Job | Sequence[Job], int, float]] = {}

    def stalled(self, hands: Iterable[Hand], now_s: float) -> list[tuple[Hand, Job | Sequence[Job]]]:
        """Return the hands that have been at one step for longer than its limit at `now_s`, and what they do."""
        seen = {}
        stalled = []
        for hand in hands:
            doing, steps = hand.doing, hand.steps
            if doing is None:
                continue
            known = self._seen.get(hand)
            if known is None or known[0] is not doing or known[1] != steps:
                seen[hand] = (doing, steps, now_s)
                continue
            seen[hand] = known
            limit_s = self._limit_s(jobs_of(doing)[0])
            if limit_s is not None and now_s - known[2] > limit_s:
                stalled.append((hand, doing))
        self._seen = seen
        return stalled
