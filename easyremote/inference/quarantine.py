"""Who of the suspects may run now: few at a time, so that a death says who it was. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Quarantine"]

Suspect = TypeVar("Suspect", bound=Hashable)

_PATIENCE_S = 10.0
"""A suspect that runs for longer is slow, not deadly as a rule: the next one is run beside it. Doubled at each further
death, so that what kills late is found alone in the end."""


class Quarantine(Generic[Suspect]):
    """Holds suspects in the order they came and gives out as many as may run beside one another. Not thread-safe.

    Examples
    --------
    >>> quarantine = Quarantine[str]()
    >>> for name in "abc":
    ...     quarantine.put(name, company=2, deaths=1)
    >>> quarantine.next(now_s=0.0), quarantine.next(now_s=0.0), quarantine.next(now_s=0.0)
    ('a', 'b', None)
    >>> quarantine.end("b"), quarantine.next(now_s=0.1)
    (True, 'c')
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Suspect, int, float]] = deque()
        self._running: dict[Suspect, tuple[int, float]] = {}

    @property
    def holds_any(self) -> bool:
        """Whether any waits or runs."""
        return bool(self._waiting or self._running)

    def put(self, suspect: Suspect, company: int, deaths: int) -> None:
        """Take one in that may run as one of `company`, and has seen so many deaths."""
        self._waiting.append((suspect, company, _PATIENCE_S * 2 ** (deaths - 1)))

    def next(self, now_s: float) -> Suspect | None:
        """Give out the one that has waited longest, or None as long as it has to wait."""
        if not self._waiting:
            return None
        counted = [company for company, until_s in self._running.values() if now_s <= until_s]
        suspect, company, patience_s = self._waiting[0]
        if len(counted) >= min([company, *counted]):
            return None
        self._waiting.popleft()
        self._running[suspect] = (company, now_s + patience_s)
        return suspect

    def end(self, suspect: Suspect) -> bool:
        """Make room if it was one of those that run; say whether it was."""
        return self._running.pop(suspect, None) is not None
