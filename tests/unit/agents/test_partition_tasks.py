"""What a partition has worked on is not worked on again."""

from __future__ import annotations

from typing import cast

import pytest
from easyremote.agents.partition_tasks import Task, _Partition
from easyremote.errors import TopicError
from easyremote.topics.events import Batch


def test_a_batch_that_begins_with_what_is_counted_ends_the_worker() -> None:
    partition: _Partition[None] = _Partition(cast("Task[None]", None), positions={"orders": 5})
    partition.advance(Batch("orders", 0, 5, 9, None))
    partition.advance(Batch("payments", 0, 0, 3, None))
    partition.advance(Batch("orders", 0, 10, 12, None))  # a transaction's marker takes an offset
    with pytest.raises(TopicError, match=r"orders\[0\] went on at offset 11, and everything before 12 is counted"):
        partition.advance(Batch("orders", 0, 11, 15, None))
