from collections import Counter
from collections.abc import Sequence

from easyremote.errors import ModelError
from easyremote.inference.forward import Poison, run_halving
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 64), st.sets(st.integers(0, 63), max_size=3))
def test_only_the_poison_items_fail_and_each_other_is_done_in_one_pass_that_succeeds(
    count: int, poison: set[int]
) -> None:
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()

    def run(batch: Sequence[int]) -> list[int]:
        spoiled = bool(poison & set(batch))
        (bad if spoiled else good).update(batch)
        if spoiled:
            raise ValueError("poison")
        return [2 * one for one in batch]

    results = run_halving(run, range(count))
    alone = not set(range(count)) - poison
    for number, result in enumerate(results):
        if number in poison:
            assert isinstance(result, ValueError if alone else Poison)
        else:
            assert result == 2 * number
            assert good[number] == 1
            assert bad[number] <= (count - 1).bit_length()
    assert len(results) == count


def test_an_error_in_an_items_place_is_its_own_and_nothing_is_run_again() -> None:
    passes: list[int] = []

    def run(batch: Sequence[int]) -> list[object]:
        passes.append(len(batch))
        return [ValueError("odd") if one % 2 else one for one in batch]

    results = run_halving(run, [0, 1, 2])
    assert (results[0], results[2], passes) == (0, 2, [3])
    assert isinstance(results[1], ValueError)


def test_a_pass_with_too_few_results_is_a_failed_pass() -> None:
    assert all(isinstance(one, ModelError) for one in run_halving(lambda _batch: [], [1, 2, 3]))
