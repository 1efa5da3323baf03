"""Aggregates over any objects: which types come, and a user's own by four functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator

__all__ = ["Custom", "TypeDistribution"]

Ints = npt.NDArray[np.int64]
States = npt.NDArray[Any]
"""Of a user's states, each as msgpack; None: nothing was added yet."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, kw_only=True)
class Custom:
    """An aggregate of one's own, by four functions. Any below: the states are whatever they make.

    `merge` must not care how records were grouped, or results will depend on it.

    Parameters
    ----------
    column : str
        The field whose values `add` is given.
    create : callable
        `() -> state`, of nothing; what msgpack can hold.
    add : callable
        `(state, value) -> state`.
    merge : callable
        `(state, state) -> state`; neither of both is changed.
    result : callable
        `(state) -> result`; what JSON can hold.

    Examples
    --------
    >>> last = Custom(column="value", create=lambda: None, add=lambda state, value: value,
    ...               merge=lambda one, other: other, result=lambda state: state)
    >>> last.results(last.of_groups(np.array([1.0, 2.0, 5.0]), np.array([0, 2])))
    [2.0, 5.0]
    """

    column: str
    create: Callable[[], Any]
    add: Callable[[Any, Any], Any]
    merge_states: Callable[[Any, Any], Any]
    result: Callable[[Any], Any]

    def __init__(
        self,
        column: str,
        *,
        create: Callable[[], Any],
        add: Callable[[Any, Any], Any],
        merge: Callable[[Any, Any], Any],
        result: Callable[[Any], Any],
    ) -> None:
        functions = {"create": create, "add": add, "merge_states": merge, "result": result}
        wrong = [name for name, function in functions.items() if not callable(function)]
        if wrong:
            raise WindowError(f"{wrong[0]} of an aggregate must be a function, and is {functions[wrong[0]]!r}")
        for name, value in {"column": column, **functions}.items():
            object.__setattr__(self, name, value)

    @property
    def state(self) -> Aggregator:
        """Itself: nobody shares it."""
        return self

    def empty(self, n: int) -> States:
        """Return n states of nothing; none is created before there is something to add."""
        return np.full(n, None, object)

    def of_groups(self, values: npt.NDArray[Any], first: Ints) -> States:
        """Return the state of each group of a batch, of which `first` says where it begins."""
        states = []
        for begin, end in pairwise([*first.tolist(), len(values)]):
            state = self.create()
            for value in values[begin:end].tolist():
                state = self.add(state, value)
            states.append(self._packed(state))
        return _objects(states)

    def merge(self, states: States, places: Ints, partial: States) -> None:
        """Merge partial states into places, each given once."""
        for place, part in zip(places.tolist(), partial.tolist(), strict=True):
            known: Any = states[place]
            if known is not None and part is not None:
                states[place] = self._packed(self.merge_states(_decode(known), _decode(part)))
            elif part is not None:
                states[place] = part

    def results(self, states: States) -> list[Any]:
        """Return the result of each state."""
        return [self.result(self.create() if state is None else _decode(state)) for state in states]

    def pack(self, states: States) -> list[bytes]:
        """Return each state as bytes, which it is."""
        return [self._packed(self.create()) if state is None else state for state in states]

    def unpack(self, packed: Sequence[bytes]) -> States:
        """Return states from what `pack` gave.

        Raises
        ------
        WindowError
            If one is no msgpack.
        """
        try:
            for one in packed:
                _decode(one)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise WindowError(f"the state of an aggregate of one's own has another form: {error}") from error
        return _objects(packed)

    def _packed(self, state: Any) -> bytes:  # Any: whatever the user's functions make
        # States are kept as bytes from the beginning: a function that changes one in place and then raises has changed
        # a copy, what a restart would refuse is refused at its record, and a worker that took over sees the same.
        try:
            return _encode(state)
        except (TypeError, OverflowError, UnicodeEncodeError) as error:
            raise WindowError(
                f"a state of {self.column!r} cannot be kept ({error}): make it of numbers, texts, lists and dicts"
            ) from error


class TypeDistribution(Custom):
    """How many values of each type a column has, by the names of Python's types; a boolean is a `bool`.

    Parameters
    ----------
    column : str
        The field.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column, create=dict, add=_count_type, merge=_sum_counts, result=_sorted)


def _count_type(counts: dict[str, int], value: object) -> dict[str, int]:
    name = type(value).__name__
    counts[name] = counts.get(name, 0) + 1
    return counts


def _sum_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _objects(values: Sequence[Any]) -> States:
    states = np.empty(len(values), object)
    for place, value in enumerate(values):
        states[place] = value
    return states
