"""How far a copy of a changelog's partition is, without a broker."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING
from easyremote.errors import BrokerUnavailable
from easyremote.settings import Settings
from easyremote.topics import changelog
from easyremote.topics.changelog import Copy, catch_up


@pytest.mark.parametrize(
    ("next_offset", "end", "told"),
    [
        (OFFSET_BEGINNING, 0, True),
        (OFFSET_BEGINNING, 7, False),
        (6, 7, False),  # a transaction's marker may be all that is there, and be undecided
        (7, 7, True),
        (7, 3, False),  # it is another topic than it was
        (7, 0, False),
    ],
)
def test_a_copy_is_at_an_end_if_nothing_stands_between_them(next_offset: int, end: int, told: bool) -> None:
    assert Copy(next_offset=next_offset).is_at(end) is told


def test_where_nothing_is_behind_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "_ends", lambda *_: {0: 0, 1: 12})
    monkeypatch.setattr(changelog, "Consumer", lambda *_: pytest.fail("a client was made to read nothing"))
    assert catch_up(Settings(kafka="none:1"), "t", {0: Copy(), 1: Copy(next_offset=12)}) == 0


def test_a_worker_that_ends_reads_no_copy_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()

    class Waits:
        def __init__(self, _config: Any) -> None: ...

        def assign(self, _places: Any) -> None: ...

        def consume(self, *_: Any) -> list[Any]:
            stopping.set()  # while a transaction is open there
            return []

        def close(self) -> None: ...

    monkeypatch.setattr(changelog, "_ends", lambda *_: {0: 5})
    monkeypatch.setattr(changelog, "Consumer", Waits)
    with pytest.raises(BrokerUnavailable, match="this worker ends"):
        catch_up(Settings(kafka="none:1"), "t", {0: Copy()}, stopping)
