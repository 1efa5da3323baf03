"""What the deaths of processes say of the calls that were under way: who may be to blame, and who is. Pure."""

from __future__ import annotations

from collections import OrderedDict

from easyremote.inference.begun import mark_of

__all__ = ["Deaths"]

_MAX_CALLS = 10_000
_PARTS = 100
"""A death's suspects are done in so many turns at most; so of up to a hundred each runs when no other does."""


class _Death:
    """What was under way when one process died, as far as it is told."""

    __slots__ = ("calls", "marks")

    def __init__(self) -> None:
        self.calls = 0
        self.marks: set[bytes] = set()


class Deaths:
    """Keeps which calls were under way at which deaths.

    A call is to blame when it alone was under way at each of its deaths, two at least. So one that another's crime
    caught is never blamed while what ended the process is in all of these deaths with it.

    Parameters
    ----------
    max_calls : int
        Most calls kept; the oldest deaths are forgotten.

    Examples
    --------
    >>> deaths = Deaths()
    >>> for call in (b"good", b"bad"):
    ...     deaths.add(call, "first", calls=2)
    >>> deaths.of("bad"), deaths.is_to_blame("bad"), deaths.of("new")
    (1, False, 0)
    >>> deaths.add(b"bad", "second", calls=1)
    >>> deaths.is_to_blame("bad"), deaths.is_to_blame("good")
    (True, False)
    """

    def __init__(self, max_calls: int = _MAX_CALLS) -> None:
        self._max_calls = max_calls
        self._kept = 0
        self._deaths: OrderedDict[str, _Death] = OrderedDict()
        self._of: dict[bytes, set[str]] = {}

    def add(self, mark: bytes, death: str, calls: int) -> None:
        """Count a death, once however often it is told; `calls` were under way at it."""
        told = self._deaths.setdefault(death, _Death())
        told.calls = max(told.calls, calls)
        if mark not in told.marks:
            told.marks.add(mark)
            self._of.setdefault(mark, set()).add(death)
            self._kept += 1
        while self._kept > self._max_calls and len(self._deaths) > 1:
            self._forget()

    def of(self, call_id: str) -> int:
        """Return at how many deaths a call was under way."""
        # Nearly always there is none, and then asking costs a call next to nothing.
        return len(self._of.get(mark_of(call_id), ())) if self._of else 0

    def is_to_blame(self, call_id: str) -> bool:
        """Say whether no other call explains the deaths that a call was under way at."""
        mark = mark_of(call_id)
        deaths = [self._deaths[one] for one in self._of.get(mark, ())]
        if len(deaths) < 2 or any(len(one.marks) < one.calls for one in deaths):
            return False  # of a death that is told in part, the one to blame may not be told yet
        return set.intersection(*(one.marks for one in deaths)) == {mark}

    def company_of(self, call_id: str) -> int:
        """Return how many suspects may run at a time while a call is one of them, it included."""
        deaths = [self._deaths[one] for one in self._of.get(mark_of(call_id), ())]
        if len(deaths) > 1:
            return 1
        return max((-(-max(one.calls, len(one.marks)) // _PARTS) for one in deaths), default=1)

    def _forget(self) -> None:
        death, told = self._deaths.popitem(last=False)
        self._kept -= len(told.marks)
        for mark in told.marks:
            self._of[mark].discard(death)
            if not self._of[mark]:
                del self._of[mark]
