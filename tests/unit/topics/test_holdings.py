from __future__ import annotations

from typing import Any

from easyremote.topics.holdings import Holdings


class Record:
    """Stands for a message."""

    def __init__(self, partition: int, offset: int) -> None:
        self._partition = partition
        self.offset = offset

    def partition(self) -> int:
        return self._partition


def _parted(held: Holdings, *records: tuple[int, int]) -> dict[int, list[int]]:
    batch: list[Any] = [Record(*one) for one in records]
    found: dict[int, Any] = dict(held.part(batch))
    return {number: [record.offset for record in group] for number, group in found.items()}


def test_a_batch_is_parted_by_partition_in_order_without_what_is_not_held() -> None:
    held = Holdings()
    held.give([0, 1, 2])
    held.take([2])
    assert _parted(held, (0, 5), (1, 7), (2, 1), (0, 6), (1, 8)) == {0: [5, 6], 1: [7, 8]}
    assert _parted(held, (1, 9), (1, 10)) == {1: [9, 10]}
    assert _parted(held, (2, 2)) == {}
