"""Where answers stand: the newest ids are all there, in memory that does not grow."""

from __future__ import annotations

from easyremote.inference.places import PlaceTable
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.lists(st.integers(0, 500), max_size=40), max_size=30))
def test_the_newest_ids_have_the_place_that_they_were_given_last(batches: list[list[int]]) -> None:
    table = PlaceTable(kept=64)
    last: dict[int, int] = {}
    order: list[int] = []
    for batch in batches:
        start = len(order)
        order += batch
        places = range(start, len(order))
        last.update(zip(batch, places, strict=True))
        table.put([b"id-%d" % one for one in batch], places)
    newest = list(dict.fromkeys(reversed(order)))[:64]
    assert [table.get(b"id-%d" % one) for one in newest] == [last[one] for one in newest]
    assert table.get(b"never") is None


def test_the_oldest_ids_are_forgotten() -> None:
    table = PlaceTable(kept=64)
    for number in range(1_000):
        table.put([b"%d" % number], [number])
    assert sum(table.get(b"%d" % number) is not None for number in range(1_000)) <= 2 * 64
