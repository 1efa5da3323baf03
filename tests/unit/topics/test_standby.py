"""Who stands by and cannot go on stands in nobody's way."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from easyremote.settings import Settings
from easyremote.topics import changelog
from easyremote.topics.changelog import Copy, Standby


class _Breaks:
    """A client that reads nothing but an error, once it is let."""

    def __init__(self) -> None:
        self.breaks = threading.Event()
        self.closed = threading.Event()

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={0: None, 1: None})})

    def incremental_assign(self, partitions: list[Any]) -> None:
        assert not self.closed.is_set()

    incremental_unassign = incremental_assign

    def unassign(self) -> None: ...

    def consume(self, _count: int, _wait_s: float) -> list[Any]:
        if self.breaks.is_set():
            raise RuntimeError("the disk is full")
        return []

    def close(self) -> None:
        self.closed.set()


def test_who_stands_by_and_cannot_go_on_gives_away_empty_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Breaks()
    monkeypatch.setattr(changelog, "_reader", lambda _settings, _brokers: client)
    standby = Standby(Settings(kafka="none:1"), "changelog")
    assert standby.take([0]) == {0: Copy()}
    standby.follow([0])
    client.breaks.set()
    assert client.closed.wait(10)
    assert standby.take([0, 1]) == {0: Copy(), 1: Copy()}
    standby.follow([0])
    standby.close()
