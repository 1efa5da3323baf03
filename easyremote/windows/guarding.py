"""A user's code inside a kernel: what it raises is told of its record or its window, and changes no state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.custom import Custom

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator
    from easyremote.windows.rows import Key

__all__ = ["Failed", "FailedWindow", "Guarded", "Raised", "calling", "is_of_a_user", "whole_or_single"]

Ints = npt.NDArray[np.int64]
States = npt.NDArray[Any]  # Any: each aggregate has a dtype of its own


class Raised(Exception):
    """What a user's code raised: `error`, and the `stage` at which."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error


class Failed(NamedTuple):
    """A record on which a user's code raised: its place in the batch. To all others it is as if it had not come."""

    place: int
    stage: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class FailedWindow:
    """A window of which a user's code made no result; it is closed all the same, if it was to be."""

    key: Key
    start: int
    end: int
    revision: int
    final: bool
    stage: str
    error: BaseException
    values: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever the aggregates give
    """What the other aggregates told."""


class calling:  # noqa: N801  # used as a statement, as those of contextlib are
    """Turns whatever is raised inside into `Raised`.

    A user's code may raise anything, also what ends a process. On the main thread, where tests and replays run, a
    KeyboardInterrupt is the user's own.
    """

    __slots__ = ("_stage",)

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or isinstance(error, Raised):
            return
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            return
        raise Raised(self._stage, error) from error


def is_of_a_user(part: object) -> bool:
    """Say whether an aggregate, its state or a detector runs code that is not this package's."""
    return type(part) is Custom or not type(part).__module__.startswith("easyremote.windows.")


class Guarded:
    """An aggregator of a user's: it raises nothing but `Raised`, and what it does is done to copies first.

    Parameters
    ----------
    inner : Aggregator
        The user's.
    stage : str
        What a dead letter names.
    """

    def __init__(self, inner: Aggregator, stage: str) -> None:
        self._inner = inner
        self._stage = stage
        self.column = inner.column
        self._nothing = inner.empty(1)

    def empty(self, n: int) -> States:
        """Return n states of nothing."""
        # They may be one object: `merge` does not change what it is given.
        return np.repeat(self._nothing, n, axis=0)

    def of_groups(self, values: npt.NDArray[Any], first: Ints) -> States:
        """Return the state of each group of a batch."""
        with calling(self._stage):
            states = self._inner.of_groups(values, first)
            if len(states) != len(first):
                raise WindowError(f"it gave {len(states)} states for {len(first)} groups of records: give one for each")
            return states

    def merge(self, states: States, places: Ints, partial: States) -> None:
        """Merge partial states into places of `states`; where it raises, none of them has changed."""
        with calling(self._stage):
            copies = self._copied(states[places])
            self._inner.merge(copies, np.arange(len(places)), partial)
            self._inner.pack(copies)  # what cannot be kept is told of the record that made it so
            states[places] = copies

    def pack(self, states: States) -> list[bytes]:
        """Return each state as bytes."""
        return self._inner.pack(states)

    def unpack(self, packed: Sequence[bytes]) -> States:
        """Return states from what `pack` gave."""
        return self._inner.unpack(packed)

    def _copied(self, states: States) -> States:
        # The states of a `Custom` are bytes, which nobody changes. Others may hold objects.
        return states if isinstance(self._inner, Custom) else self._inner.unpack(self._inner.pack(states)).copy()


def whole_or_single(
    aggregate: Aggregator, count: int, make: Callable[[Ints], States]
) -> tuple[States, dict[int, Raised]]:
    """Return the states of windows, made all at once; where a user's code raises, one by one, and what each raised.

    Parameters
    ----------
    aggregate : Aggregator
        Whose.
    count : int
        How many.
    make : callable
        `(windows) -> states`: of some of them, by their numbers.
    """
    try:
        return make(np.arange(count)), {}
    except Raised:
        parts: list[States] = []
        errors: dict[int, Raised] = {}
        for number in range(count):
            try:
                parts.append(make(np.array([number])))
            except Raised as raised:
                errors[number] = raised
                parts.append(aggregate.empty(1))
        return np.concatenate(parts), errors
