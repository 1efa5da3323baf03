"""Count, sum, squared deviations and extremes of numbers, merged without losing what rounding takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError

__all__ = ["LARGEST", "MOMENTS", "Moments", "difference_of_means", "numbers_of", "sums_of_groups", "two_sum"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]
"""Of float64, or of objects. Any: a user's objects."""

Summed = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""What has `count`, and `sum` and `lost`. Any: a structured array has no static type for its fields."""

MOMENTS = np.dtype(
    [
        ("count", "<i8"),
        ("invalid", "<i8"),
        ("sum", "<f8"),
        ("lost", "<f8"),
        ("m2", "<f8"),
        ("min", "<f8"),
        ("max", "<f8"),
    ]
)
"""Numbers that count, and those that do not; `lost` is what rounding took from `sum`, `m2` the squared deviations."""

_EMPTY = np.array((0, 0, 0.0, 0.0, 0.0, np.inf, -np.inf), MOMENTS)
LARGEST = 1e150
"""The square of a number must be finite too."""
_ROUNDS = 3
"""Each takes at least 32 bits of the numbers exactly, so that what is left is below 2**-96 of the greatest."""
_SPLIT = 134_217_729.0


@dataclass(frozen=True)
class Moments:
    """The state behind `Sum`, `Mean`, `Min`, `Max`, `Variance` and their like, which share it for a column.

    NaN, the infinities and numbers beyond 1e150 are counted as invalid and left out. Counts and extremes are exact.
    Sums are carried with about 100 bits: to the last bit the same however records are grouped, unless numbers of over
    2**90 times the sum's size cancel one another; then within 1e-27 of their size.

    Parameters
    ----------
    column : str
        What is read; what is no number in it (None, text, a boolean) is left out.

    References
    ----------
    Rump, Ogita and Oishi, "Accurate Floating-Point Summation", 2008 (the extraction of exact parts); Chan, Golub and
    LeVeque, "Algorithms for computing the sample variance", 1983 (merging).
    """

    column: str

    def empty(self, n: int) -> npt.NDArray[Any]:
        """Return n states of nothing."""
        return np.full(n, _EMPTY)

    def of_groups(self, values: Values, first: Ints) -> npt.NDArray[Any]:
        """Return the state of each group of a batch; `first` is where each begins."""
        numbers, counts = numbers_of(values)
        valid = counts & (np.abs(numbers) <= LARGEST)
        size = np.diff(first, append=len(numbers))
        states = self.empty(len(first))
        if valid.all():
            states["count"] = size
            least = most = numbers
        else:
            states["count"] = np.add.reduceat(valid.astype(np.int64), first)
            states["invalid"] = np.add.reduceat((counts & ~valid).astype(np.int64), first)
            least, most = np.where(valid, numbers, np.inf), np.where(valid, numbers, -np.inf)
            numbers = np.where(valid, numbers, 0.0)
        states["min"], states["max"] = np.minimum.reduceat(least, first), np.maximum.reduceat(most, first)
        largest = np.maximum.reduceat(np.abs(numbers), first)
        states["sum"], states["lost"] = sums_of_groups(numbers, first, size, largest)
        count = np.maximum(states["count"], 1)
        deviation = np.where(valid, numbers - np.repeat(states["sum"] / count, size), 0.0)
        # The mean was rounded: what the deviations sum up to is taken out again.
        off = np.add.reduceat(deviation, first)
        states["m2"] = np.maximum(np.add.reduceat(deviation * deviation, first) - off * off / count, 0.0)
        return states

    def merge(self, states: npt.NDArray[Any], places: Ints, partial: npt.NDArray[Any]) -> None:
        """Merge partial states into places, each given once."""
        mine = states[places]
        count, more = mine["count"], partial["count"]
        both = count + more
        delta = difference_of_means(partial, mine)
        share = np.where((count > 0) & (more > 0), count * (more / np.maximum(both, 1)), 0.0)
        mine["m2"] += partial["m2"] + delta * delta * share
        total, error = two_sum(mine["sum"], partial["sum"])
        mine["sum"], mine["lost"] = two_sum(total, error + mine["lost"] + partial["lost"])
        mine["count"] = both
        mine["invalid"] += partial["invalid"]
        mine["min"] = np.minimum(mine["min"], partial["min"])
        mine["max"] = np.maximum(mine["max"], partial["max"])
        states[places] = mine

    def pack(self, states: npt.NDArray[Any]) -> list[bytes]:
        """Return each state as bytes."""
        whole, size = states.tobytes(), MOMENTS.itemsize
        return [whole[place : place + size] for place in range(0, len(whole), size)]

    def unpack(self, packed: Sequence[bytes]) -> npt.NDArray[Any]:
        """Return states from what `pack` gave.

        Raises
        ------
        WindowError
            If they are of another form.
        """
        if any(len(one) != MOMENTS.itemsize for one in packed):
            raise WindowError(f"the state of a sum is {MOMENTS.itemsize} bytes: this is that of another aggregate")
        return np.frombuffer(b"".join(packed), MOMENTS).copy()


def numbers_of(values: Values) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return values as numbers, and which of them are numbers; a boolean is none."""
    if values.dtype == np.float64:
        return values, np.ones(len(values), np.bool_)
    if values.dtype != object:
        return values.astype(np.float64), np.full(len(values), values.dtype.kind in "iuf")
    counts = np.array([isinstance(one, int | float) and not isinstance(one, bool) for one in values], np.bool_)
    numbers = np.zeros(len(values))
    numbers[counts] = [_as_float(one) for one in values[counts]]
    return numbers, counts


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def sums_of_groups(numbers: Floats, first: Ints, size: Ints, largest: Floats) -> tuple[Floats, Floats]:
    """Return the sum of each group in two parts: rounded, and what rounding took.

    Parameters
    ----------
    numbers : ndarray of float64, shape (n,)
        Group by group, none beyond `LARGEST`.
    first, size : ndarray of int64, shape (g,)
        Where each group begins, and how many it has.
    largest : ndarray of float64, shape (g,)
        At least as large as each group's numbers are without their signs.
    """
    _, exponent = np.frexp(largest)
    bits = np.frexp(size.astype(np.float64))[1] + 1
    total, lost = np.zeros(len(first)), np.zeros(len(first))
    exponent = exponent + bits
    for _ in range(_ROUNDS):
        # Adding a great power of two cuts all numbers of a group at one place: their upper parts sum up exactly.
        great = np.repeat(np.ldexp(1.0, exponent), size)
        upper = (great + numbers) - great
        numbers = numbers - upper
        total, error = two_sum(total, np.add.reduceat(upper, first))
        lost += error
        if not numbers.any():
            break
        exponent = exponent - 53 + bits
    else:
        lost += np.add.reduceat(numbers, first)
    return two_sum(total, lost)


def two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the rounded sum and its error, which together are exact (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the rounded product and its error, which together are exact (Dekker)."""
    product = a * b
    upper_a, upper_b = a * _SPLIT - (a * _SPLIT - a), b * _SPLIT - (b * _SPLIT - b)
    lower_a, lower_b = a - upper_a, b - upper_b
    error = ((upper_a * upper_b - product) + upper_a * lower_b + lower_a * upper_b) + lower_a * lower_b
    return product, error


def _mean(states: Summed) -> tuple[Floats, Floats]:
    """Return the mean of each state in two parts."""
    count = np.maximum(states["count"], 1).astype(np.float64)
    mean = states["sum"] / count
    product, error = _two_product(mean, count)
    return mean, ((states["sum"] - product) - error + states["lost"]) / count


def difference_of_means(one: Summed, other: Summed) -> Floats:
    """Return by how much the mean of each state of one is above that of the other, to the last digits."""
    (mean, rest), (other_mean, other_rest) = _mean(one), _mean(other)
    difference: Floats = (mean - other_mean) + (rest - other_rest)
    return difference
