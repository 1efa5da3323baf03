"""Keys that memory has no room for: they rest on a shelf until a record of theirs comes, or their time has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from easyremote.windows.keys import Keys
    from easyremote.windows.rows import Key

__all__ = ["NEVER", "Rested", "Resting", "Shelf", "earliest"]

Ints = npt.NDArray[np.int64]

NEVER = 2**62
"""Time at which a key has to be woken that only a record of its own wakes."""
_LEAVES = 0.75
"""Of what memory may hold, what is left there once some rest: so that this is not done at each batch."""
_AT_ONCE = 10_000
"""Keys that are woken at once, or as many as memory may hold where those are more; the rest is woken next time."""


class Rested(NamedTuple):
    """A key on the shelf: as in the changelog, with its state, and the time from which on it must be woken."""

    key: bytes
    content: bytes
    wake: int


class Shelf(Protocol):
    """Where keys rest."""

    def put(self, rested: Iterable[Rested]) -> None:
        """Take keys in; none of them is there."""
        ...

    def take(self, key: bytes) -> bytes | None:
        """Return a key's state, which is no more on the shelf; None if it was not."""
        ...

    def due(self, limit: int, most: int) -> list[tuple[bytes, bytes]]:
        """Return keys whose time is at or before a limit, the earliest first, which are no more on the shelf."""
        ...


class Resting:
    """Moves the keys of a kernel to a shelf and back; until it is given a shelf, none of them moves.

    Parameters
    ----------
    keys : Keys
        Those of the kernel.
    restore : callable
        The kernel's: `(key, content)` as in the changelog.
    let_go : callable
        `(numbers, now_ms) -> (contents, wakes)`: the kernel gives up what it holds of keys, by their rising numbers; it
        returns that, as in the changelog, and when each must be woken.
    """

    def __init__(
        self,
        keys: Keys,
        restore: Callable[[bytes, bytes], None],
        let_go: Callable[[Ints, int], tuple[Sequence[bytes], Ints]],
    ) -> None:
        self._keys = keys
        self._restore = restore
        self._let_go = let_go
        self._shelf: Shelf | None = None
        self._most = 0

    def on(self, shelf: Shelf, most: int) -> None:
        """Have memory hold no more than so many keys, or what is needed at once; the others rest on a shelf."""
        self._shelf, self._most = shelf, most
        self._keys.look_elsewhere(self._recall)

    def rest(self, now_ms: int) -> None:
        """Let the keys rest that were longest without a record, if memory has no room for them.

        What the kernel's `changes` gave must be committed, and nothing have changed since.
        """
        if self._shelf is None or len(self._keys) <= self._most:
            return
        numbers = self._keys.longest_unused(len(self._keys) - int(self._most * _LEAVES))
        contents, wakes = self._let_go(numbers, now_ms)
        packed = zip(self._keys.of(numbers.tolist()), contents, wakes.tolist(), strict=True)
        self._shelf.put([Rested(msgspec.json.encode(key), content, wake) for key, content, wake in packed])
        for number in numbers.tolist():
            self._keys.drop(number)

    def wake(self, limit: int) -> None:
        """Put keys back whose time has come."""
        if self._shelf is not None:
            for key, content in self._shelf.due(limit, max(self._most, _AT_ONCE)):
                self._restore(key, content)

    def _recall(self, key: Key) -> None:
        packed = msgspec.json.encode(key)
        content = None if self._shelf is None else self._shelf.take(packed)
        if content is not None:
            self._restore(packed, content)


def earliest(series: Ints, owners: Ints, times: Ints) -> Ints:
    """Return the earliest time of each of some series; `NEVER` of one that owns none.

    Parameters
    ----------
    series : ndarray of int64, shape (s,)
        Rising.
    owners, times : ndarray of int64, shape (n,)
        Whose, and when.

    Examples
    --------
    >>> earliest(np.array([1, 3]), np.array([3, 2, 3]), np.array([30, 20, 31])).tolist() == [NEVER, 30]
    True
    """
    found = np.full(len(series), NEVER, np.int64)
    place = np.minimum(np.searchsorted(series, owners), len(series) - 1)
    mine = series[place] == owners
    np.minimum.at(found, place[mine], times[mine])
    return found
