"""Aggregates against Python's own arithmetic, on values chosen to hurt, split and merged in any way."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from easyremote.errors import WindowError
from easyremote.windows.aggregates import (
    Aggregate,
    Count,
    Invalid,
    Max,
    Mean,
    Min,
    NumericCount,
    StdDev,
    Sum,
    Variance,
)
from easyremote.windows.custom import Custom, TypeDistribution
from easyremote.windows.quantiles import EXACT, RELATIVE_ERROR, Median, Quantile
from hypothesis import given, settings
from hypothesis import strategies as st

OFFSET = st.one_of(
    st.floats(-1e6, 1e6).map(lambda value: round(value, 6)), st.floats(-1.0, 1.0).map(lambda value: 1e16 + value * 64)
)
HOSTILE = st.one_of(OFFSET, st.sampled_from([5e-324, -5e-324, 0.0, -0.0, 1e150, -1e150, 1e-150, 0.1]))
CHANCE = st.randoms(use_true_random=False)


def _column(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    if all(isinstance(value, float) for value in values):
        return np.array(values, np.float64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _results(wanted: Sequence[Aggregate], values: Sequence[Any], chance: random.Random | None = None) -> list[Any]:
    """Return the results of one window, its values cut into groups and merged as chance has it."""
    found = []
    for one in wanted:
        state = one.state
        whole = state.empty(1)
        cuts = [0] if chance is None else sorted({0, *(chance.randrange(len(values)) for _ in range(4))})
        partial = state.of_groups(_column(values), np.array(cuts, np.int64))
        order = list(range(len(cuts)))
        if chance is not None:
            chance.shuffle(order)
        for place in order:
            state.merge(whole, np.array([0]), state.unpack(state.pack(partial[[place]])))
        found += one.results(whole)
    return found


@given(st.lists(HOSTILE, min_size=1, max_size=60), CHANCE)
@settings(max_examples=50, deadline=None)
def test_counts_and_extremes_are_exact_and_sums_and_moments_right_to_1e_12_however_they_are_grouped(
    values: list[float], chance: random.Random
) -> None:
    wanted: list[Aggregate] = [
        Count(),
        NumericCount("v"),
        Min("v"),
        Max("v"),
        Sum("v"),
        Mean("v"),
        Variance("v"),
        StdDev("v"),
    ]
    count, numeric, least, most, total, mean, variance, std_dev = _results(wanted, values, chance)
    assert (count, numeric, least, most) == (len(values), len(values), min(values), max(values))
    size = math.fsum(abs(value) for value in values)
    assert total == pytest.approx(math.fsum(values), rel=1e-12, abs=size * 1e-27)
    exact_mean = sum(map(Fraction, values)) / len(values)
    assert mean == pytest.approx(float(exact_mean), rel=1e-12, abs=size * 1e-27)
    exact = sum((Fraction(value) - exact_mean) ** 2 for value in values) / len(values)
    assert variance == pytest.approx(float(exact), rel=1e-9, abs=float(exact_mean**2) * 1e-30)
    assert std_dev == pytest.approx(math.sqrt(variance))


@given(st.lists(OFFSET, min_size=1, max_size=200), CHANCE, CHANCE)
@settings(max_examples=50, deadline=None)
def test_a_sum_is_the_same_to_the_last_bit_however_its_records_are_grouped(
    values: list[float], one: random.Random, other: random.Random
) -> None:
    (first,), (second,) = _results([Sum("v")], values, one), _results([Sum("v")], values, other)
    assert first == second == _results([Sum("v")], sorted(values))[0]


def test_a_large_offset_does_not_swallow_the_variance() -> None:
    values = [1e16 + step for step in (0.0, 2.0, 4.0, 6.0)] * 500
    variance, mean = _results([Variance("v"), Mean("v")], values, random.Random(1))
    assert variance == pytest.approx(statistics.pvariance([0.0, 2.0, 4.0, 6.0]), rel=1e-9)
    assert mean == pytest.approx(1e16 + 3)


@given(st.lists(st.one_of(HOSTILE, st.sampled_from([math.nan, math.inf, -math.inf, 1e151])), min_size=1), CHANCE)
@settings(max_examples=50, deadline=None)
def test_nan_and_infinities_are_counted_and_spoil_nothing(values: list[float], chance: random.Random) -> None:
    good = [value for value in values if abs(value) <= 1e150]
    wanted: list[Aggregate] = [NumericCount("v"), Invalid("v"), Sum("v"), Min("v"), Max("v")]
    count, invalid, total, least, most = _results(wanted, values, chance)
    assert (count, invalid) == (len(good), len(values) - len(good))
    if good:
        assert total == pytest.approx(math.fsum(good), rel=1e-12)
        assert (least, most) == (min(good), max(good))
    else:
        assert total is least is most is None


def test_what_is_no_number_is_left_out_of_numbers_and_told_by_its_type() -> None:
    values = [1, 2.5, True, None, "7", 10**400, {"a": 1}]
    wanted: list[Aggregate] = [Count(), NumericCount("v"), Invalid("v"), Sum("v"), TypeDistribution("v")]
    count, numeric, invalid, total, types = _results(wanted, values, random.Random(3))
    assert (count, numeric, invalid, total) == (7, 2, 1, 3.5)
    assert types == {"NoneType": 1, "bool": 1, "dict": 1, "float": 1, "int": 2, "str": 1}


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=EXACT), st.floats(0, 1), CHANCE)
@settings(max_examples=50, deadline=None)
def test_quantiles_of_few_numbers_are_exact(values: list[float], q: float, chance: random.Random) -> None:
    median, quantile = _results([Median("v"), Quantile("v", q)], values, chance)
    assert median == pytest.approx(statistics.median(values))
    assert quantile == pytest.approx(np.quantile(values, q))


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_of_many_numbers_are_within_their_error_and_the_same_however_grouped(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 10.0 ** (seed * 3 - 6), 20_000).tolist()
    values += [0.0] * 100
    for q in (0.0, 0.01, 0.25, 0.5, 0.99, 1.0):
        (found,) = _results([Quantile("v", q)], values, random.Random(seed))
        (again,) = _results([Quantile("v", q)], values)
        exact = float(np.quantile(values, q, method="lower"))
        assert found == again
        assert abs(found - exact) <= RELATIVE_ERROR * abs(exact) * (1 + 1e-9)


def test_an_aggregate_of_ones_own_is_four_functions() -> None:
    distinct = Custom(
        "v",
        create=list,
        add=lambda state, value: sorted({*state, value}),
        merge=lambda one, other: sorted({*one, *other}),
        result=len,
    )
    assert _results([distinct], [1.0, 2.0, 2.0, 3.0, 1.0], random.Random(4)) == [3]


def test_a_state_that_cannot_be_kept_and_what_is_no_function_say_what_to_do() -> None:
    functions: dict[str, Any] = {"add": lambda state, _: state, "merge": lambda one, _: one, "result": str}
    kept = Custom("v", create=lambda: object, **functions)
    with pytest.raises(WindowError, match="numbers, texts, lists"):
        kept.pack(kept.empty(1))
    with pytest.raises(WindowError, match="must be a function"):
        Custom("v", create=None, **functions)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(WindowError, match="from 0 to 1"):
        Quantile("v", 99)


@pytest.mark.parametrize("aggregate", [Count(), Sum("v"), Median("v"), TypeDistribution("v")])
def test_the_state_of_another_aggregate_is_refused(aggregate: Aggregate) -> None:
    with pytest.raises(WindowError, match="another"):
        aggregate.state.unpack([b"\xc1 none of ours"])
