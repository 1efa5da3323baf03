"""What a partition has worked on is not worked on again, and what silence leads to is committed like the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from easyremote.agents import partition_tasks
from easyremote.agents.partition_tasks import Names, PartitionTasks, Task, _Partition
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics.deliveries import Offsets, Output
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent, Tick
from easyremote.topics.progress import Heard
from easyremote.topics.source import BatchSource


def test_a_batch_that_begins_with_what_is_counted_ends_the_worker() -> None:
    partition: _Partition[None] = _Partition(cast("Task[None]", None), positions={"orders": 5})
    partition.advance(Batch("orders", 0, 5, 9, None))
    partition.advance(Batch("payments", 0, 0, 3, None))
    partition.advance(Batch("orders", 0, 10, 12, None))  # a transaction's marker takes an offset
    with pytest.raises(TopicError, match=r"orders\[0\] went on at offset 11, and everything before 12 is counted"):
        partition.advance(Batch("orders", 0, 11, 15, None))


class _Silence:
    """A task that tells something when time passes."""

    resting = None

    def step(self, batch: Batch[None], now_ms: int) -> list[Output]:
        return []

    def __init__(self) -> None:
        self.heard: list[Mapping[str, Heard] | None] = []

    def tick(self, now_ms: int, heard: Mapping[str, Heard] | None = None) -> list[Output]:
        self.heard.append(heard)
        return [Output("sums", b"a", b"1")]

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        return []

    def restore(self, key: bytes, content: bytes) -> None: ...


class _Deliveries:
    commits_offsets = True

    def __init__(self) -> None:
        self.committed: list[tuple[int, int, Offsets]] = []

    def commit(self, outputs: Sequence[Output], positions: Sequence[Output], offsets: Offsets, _group: Any) -> None:
        self.committed.append((len(outputs), len(positions), offsets))

    def close(self) -> None: ...


def _fail(error: Exception) -> None:
    raise error


def test_a_partition_that_is_lost_and_given_back_at_once_begins_with_what_was_restored_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_tasks, "_delivery", lambda *_: _Deliveries())
    names = Names("group", ("orders",), "changelog", "streams")
    tasks: PartitionTasks[None] = PartitionTasks(Settings(kafka="none:1"), names, lambda _partition: _Silence(), _fail)
    source = cast("BatchSource[None]", None)
    former, latter = (_Partition[None](_Silence(), positions={"orders": at}) for at in (7, 9))
    # Both were restored before the first of these was heard.
    events: list[SourceEvent[None]] = [
        Assigned((0,), {0: former}),
        Batch("orders", 0, 7, 8, None),
        Revoked((0,), lost=True),
        Assigned((0,), {0: latter}),
        Batch("orders", 0, 9, 10, None),
    ]
    try:
        for event in events:
            tasks._deal_with(event, source)
        assert tasks._held == {0: latter}
    finally:
        tasks.close()
    assert (former.positions, latter.positions) == ({"orders": 8}, {"orders": 10})


def test_what_silence_leads_to_is_committed_with_where_its_partition_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = _Deliveries()
    monkeypatch.setattr(partition_tasks, "_delivery", lambda *_: delivery)
    names = Names("group", ("orders",), "changelog", "streams")
    tasks: PartitionTasks[None] = PartitionTasks(Settings(kafka="none:1"), names, lambda _partition: _Silence(), _fail)
    source = cast("BatchSource[None]", None)
    try:
        silence = _Silence()
        tasks._held[0] = _Partition(silence, positions={"orders": 7})
        heard = {("orders", 0): Heard(5_000, 20), ("orders", 1): Heard(9_000, 0)}
        events: list[SourceEvent[None]] = [Tick(None), Batch("orders", 0, 7, 9, None), Tick(None, heard)]
        for event in events:
            tasks._deal_with(event, source)
    finally:
        tasks.close()
    assert delivery.committed == [(1, 0, {("orders", 0): 7}), (1, 1, {("orders", 0): 9})]
    assert silence.heard == [{"orders": Heard(0, 0)}, {"orders": Heard(5_000, 20)}]
