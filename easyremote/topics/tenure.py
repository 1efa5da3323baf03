"""Whether a member of a group may still take itself for one: not after it was frozen, until it has asked. Pure."""

from __future__ import annotations

from collections.abc import Callable

from easyremote.clock import monotonic_s

__all__ = ["Tenure"]


class Tenure:
    """Doubts the membership after a time in which this process did not run.

    The group gives the partitions of a member that is silent for a session to others, and the silent one cannot know.
    So whoever runs all the time looks here all the time; a gap between two looks means that nothing ran.

    Parameters
    ----------
    limit_s : float
        Length of a gap from which on there is doubt, s: well under the session.
    clock : callable
        Monotonic, s; must go on while the process is stopped.

    Examples
    --------
    >>> now = [0.0]
    >>> tenure = Tenure(0.75, lambda: now[0])
    >>> now[0] = 0.5; tenure.is_sure()
    True
    >>> now[0] = 60.0; tenure.is_sure(), tenure.look(), tenure.is_sure()
    (False, False, False)
    >>> tenure.confirm(); tenure.is_sure()
    True
    >>> tenure.doubt(); tenure.look(), tenure.is_sure()
    (False, False)
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = monotonic_s) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._doubted = False
        self._looked_s = clock()

    def look(self) -> bool:
        """Note that this process runs; say whether the membership is beyond doubt."""
        now = self._clock()
        if now - self._looked_s > self._limit_s:
            self._doubted = True  # before the time is noted: others ask meanwhile
        self._looked_s = now
        return not self._doubted

    def doubt(self) -> None:
        """Note, on any thread, that the group may have gone on without this member: the broker was away, say."""
        self._doubted = True

    def confirm(self) -> None:
        """Note that the group has just said that this is a member."""
        self._looked_s = self._clock()
        self._doubted = False

    def is_sure(self) -> bool:
        """Say whether there is no doubt at this moment; from any thread."""
        return not self._doubted and self._clock() - self._looked_s <= self._limit_s
