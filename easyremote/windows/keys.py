"""Numbers for the keys of a partition: arrays go by them, and those of keys that are gone are given again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError

if TYPE_CHECKING:
    from easyremote.windows.rows import Key

__all__ = ["Keys", "of_another_form"]

Ints = npt.NDArray[np.int64]


def of_another_form(key: bytes, found: str) -> WindowError:
    """Return the error for a key's state in the changelog that these kernels did not write."""
    return WindowError(
        f"the state of key {key!r} has another form ({found}): give the changed pipeline another name, or delete its "
        "changelog topic and reset its group to read everything again"
    )


class Numbered(Protocol):
    """What holds something for each number."""

    def grow(self, number: int, /) -> None:
        """Make room for so many."""
        ...

    def reset(self, number: int, /) -> None:
        """Begin anew with a number that another key gets."""
        ...


class Keys:
    """The keys that a kernel knows.

    Parameters
    ----------
    *holders : Numbered
        What holds something for each number, such as watermarks.
    """

    def __init__(self, *holders: Numbered) -> None:
        self._holders = holders
        self._ids: dict[Key, int] = {}
        self._keys: list[Key] = []
        self._unused: list[int] = []
        self._recall: Callable[[Key], None] | None = None
        self._turn = 0
        self._used = np.zeros(0, np.int64)
        """When each number was last asked for, where keys may be elsewhere."""

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, number: int) -> Key:
        return self._keys[number]

    def of(self, numbers: Sequence[int]) -> list[Key]:
        """Return the keys of some numbers."""
        keys = self._keys
        return [keys[number] for number in numbers]

    def known(self) -> Ints:
        """Return the numbers that are in use."""
        return np.fromiter(self._ids.values(), np.int64, len(self._ids))

    def numbers(self, keys: Sequence[Key]) -> Ints:
        """Return each key's number; one that is new gets one."""
        known = self._ids
        try:
            numbers = np.fromiter(map(known.__getitem__, keys), np.int64, len(keys))
        except KeyError:
            new = [key for key in dict.fromkeys(keys) if key not in known]
            for key in new:
                known[key] = self._number_for(key)
            if self._recall is not None:
                for key in new:
                    self._recall(key)
            numbers = np.fromiter(map(known.__getitem__, keys), np.int64, len(keys))
        if self._recall is not None:
            self._note_use(numbers)
        return numbers

    def look_elsewhere(self, recall: Callable[[Key], None]) -> None:
        """Have `recall` put back what a key had that is new here; note from here on which are used."""
        self._recall = recall

    def longest_unused(self, count: int) -> Ints:
        """Return the numbers of the keys that nobody has asked for the longest; rising."""
        numbers = self.known()
        oldest = np.argpartition(self._used[numbers], count - 1)[:count]
        return np.sort(numbers[oldest])

    def drop(self, number: int) -> Key:
        """Forget a key; return it."""
        key = self._keys[number]
        del self._ids[key]
        self._unused.append(number)
        return key

    def _note_use(self, numbers: Ints) -> None:
        self._turn += 1
        missing = len(self._keys) - len(self._used)
        if missing > 0:
            self._used = np.concatenate([self._used, np.zeros(max(256, missing, len(self._used)), np.int64)])
        self._used[numbers] = self._turn

    def _number_for(self, key: Key) -> int:
        if self._unused:
            number = self._unused.pop()
            self._keys[number] = key
            for holder in self._holders:
                holder.reset(number)
        else:
            number = len(self._keys)
            self._keys.append(key)
            for holder in self._holders:
                holder.grow(number + 1)
        return number
